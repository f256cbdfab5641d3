"""How generated images came to be, in words that stand beside their metrics."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging

from callbacks.ema import EMAWeightAveraging


def sampling_facts(trainer: Trainer, module: object) -> dict[str, str]:
    """Return ``sampler``, ``guidance``, ``denoiser`` and ``ema``, as far as they are known.

    The module's ``sampling_record`` names the first three by ``class_path`` and ``init_args``.
    Weights are averages where a callback of the run averages them; of weights that this trainer has
    not trained nothing is known without one.
    """
    record: dict[str, Any] = getattr(module, "sampling_record", {})
    parts = ("sampler", "guidance", "denoiser")
    facts = {part: _short(record[part]) for part in parts if part in record}
    averaging = [
        f"decay {callback.decay}" if isinstance(callback, EMAWeightAveraging) else "yes"
        for callback in trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        if isinstance(callback, EMAWeightAveraging | WeightAveraging)
    ]
    if averaging or trainer.global_step:
        facts["ema"] = averaging[0] if averaging else "no"
    return facts


def _short(value: object) -> str:
    """Return a part as Python would build it, without the path of its class."""
    if not isinstance(value, dict) or "class_path" not in value:
        return str(value)
    name = str(value["class_path"]).rpartition(".")[2]
    arguments = ", ".join(
        f"{key}={_short(argument)}" for key, argument in value.get("init_args", {}).items()
    )
    return f"{name}({arguments})"
