"""What a cell does once the heavy imports are there: fit, test, and what comes out of it."""

import copy
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import ArgsType
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from safetensors import SafetensorError
from typing_extensions import override

from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.protocols import Exports
from pretzel.ablation.worker.checkpoints import Checkpoints, digest, save_final
from pretzel.ablation.worker.hang_watchdog import Watchdog
from pretzel.ablation.worker.provenance import peak_memory, versions
from pretzel.ablation.worker.run_monitor import Watch, metrics
from pretzel.ablation.worker.slurm_tasks import check_tasks, cluster_plugins
from pretzel.errors import UserError
from pretzel.files.atomic import read_json, write_json, write_text
from pretzel.runs.cli import RunCLI
from pretzel.runs.exact_resume import make_exact


class WorkerCLI(RunCLI):
    """The command line's own way from a configuration to objects; the cell runs them itself."""

    @override
    def parse_arguments(self, parser: Any, args: ArgsType) -> None:
        assert isinstance(args, Namespace)
        # The plan has resolved it: another dump would say the same, for a tenth of a short cell.
        self.config_dump = copy.deepcopy(args["fit"])  # the parser works on what it is given
        super().parse_arguments(parser, args)

    @override
    def before_instantiate_classes(self) -> None:
        self.save_config_callback = None  # the cell saves what was dumped

    @override
    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        config["plugins"] = cluster_plugins(config.get("plugins"), config.get("devices"))
        trainer = super()._instantiate_trainer(config, callbacks)
        check_tasks(trainer)
        return trainer

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        """Leave running to the cell."""


def train_and_test(
    folder: RunFolder,
    spec: dict[str, Any],
    asked_to_stop: Callable[[], bool],
    watchdog: Watchdog | None = None,
) -> dict[str, Any]:
    """Fit from where the cell stands, then test with the final weights.

    Args:
        folder: Holds checkpoints or ``final.ckpt`` of an earlier process, if there was one.
        spec: The cell's configuration and what it is asked for.
        asked_to_stop: Whether to stop at the next batch.
        watchdog: Is told of progress.

    Returns:
        Metrics and facts about them, seconds, seconds a step (median, data included, validation
        not), peak memory in bytes, numbers of parameters, and versions.

    Raises:
        KeyboardInterrupt: After saving, when asked to stop.
        UserError: If the training loss is not finite, or a stage's module exports nothing.
    """
    watch = Watch(folder, float(spec["checkpoint_seconds"]), asked_to_stop, watchdog)
    cli = WorkerCLI(Namespace({"subcommand": "fit", "fit": spec["config"]}))  # type: ignore[no-untyped-call]
    write_text(folder.path / "config.yaml", yaml.safe_dump(cli.config_dump, sort_keys=False))
    trainer, model = cli.trainer, cli.model
    if spec["export"] and hasattr(model, "export_to"):
        model.export_to = None  # the stage's file lies in its folder, and nowhere else
    seed = int(cli.config["fit"]["seed_everything"])
    loop = make_exact(trainer)
    watch.follow(trainer, loop)
    fitted = _fitted(folder.path)
    if fitted is None:
        if _stops(trainer, asked_to_stop()):
            raise KeyboardInterrupt
        checkpoint = watch.checkpoints.newest()
        trainer.fit(model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
        fitted = {
            "metrics": metrics(trainer),
            "train_seconds": watch.seconds,
            "steps": trainer.global_step,
            "step_seconds": statistics.median(loop.step_seconds) if loop.step_seconds else None,
            "peak_memory_bytes": peak_memory(trainer.strategy.root_device),
            "facts": facts(trainer),
            "sha256": save_final(trainer, folder.path / "final.ckpt"),
        }
        if trainer.is_global_zero:
            write_json(folder.path / "fit.json", fitted)
    else:  # trained by an earlier process: nothing has put its weights into this model yet
        kept = torch.load(folder.path / "final.ckpt", map_location="cpu", weights_only=True)
        model.on_load_checkpoint(kept)
        model.load_state_dict(kept["state_dict"])
        trainer.fit_loop.load_state_dict(kept["loops"]["fit_loop"])  # the step that figures are of
    if _stops(trainer, asked_to_stop()):
        raise KeyboardInterrupt
    found = dict(fitted["metrics"])
    if spec.get("tests", not spec["export"]) and is_overridden("test_step", model):
        # seeded anew: the test is the same whether training has just ended or was resumed
        seed_everything(seed, workers=True, verbose=False)
        trainer.test(
            model,
            datamodule=cli.datamodule,
            ckpt_path=folder.path / "final.ckpt",
            weights_only=True,
            verbose=False,
        )
        found |= metrics(trainer)
    trainer.strategy.barrier()  # what the first process leaves behind when it ends is killed
    if spec["export"]:
        _export(model, folder.path / "weights.safetensors")
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    peak = max(fitted["peak_memory_bytes"], peak_memory(trainer.strategy.root_device))
    return {
        "metrics": found,
        "facts": fitted["facts"] | facts(trainer),
        "train_seconds": fitted["train_seconds"],
        "seconds": watch.seconds,
        "steps": fitted["steps"],
        "step_seconds": fitted["step_seconds"],
        "peak_memory_bytes": peak,
        "parameters": {"trainable": sizes[True], "frozen": sizes[False]},
        "versions": versions(),
    }


@runtime_checkable
class HasFacts(Protocol):
    """A callback that knows what values of its metrics must share to be comparable.

    Attributes:
        facts: By name of the metric, for example ``{"test/fid": {"extractor": "Inception"}}``.
    """

    facts: dict[str, dict[str, Any]]


def facts(trainer: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401
    """Return what callbacks know of their metrics."""
    found: dict[str, dict[str, Any]] = {}
    for callback in trainer.callbacks:
        if isinstance(callback, HasFacts):
            for name, values in callback.facts.items():
                found[name] = found.get(name, {}) | values
    return found


def _stops(trainer: Trainer, asked: bool) -> bool:
    """Tell whether this process stops, all of a cell alike; the first decides before they meet."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return trainer.strategy.reduce_boolean_decision(asked, all=False)
    return asked and trainer.is_global_zero


def _fitted(folder: Path) -> dict[str, Any] | None:
    """Return what an earlier process has noted after training; None if there is more to train."""
    Checkpoints(folder).sweep()
    fitted, final = read_json(folder / "fit.json"), folder / "final.ckpt"
    if fitted is None or not final.exists():
        return None
    if digest(final) != fitted.get("sha256"):
        rank_zero_info(f"{final} is damaged; the end of training is run again")
        return None
    return fitted


def _export(model: LightningModule, path: Path) -> None:
    if not isinstance(model, Exports):
        raise UserError(f"{type(model).__name__} cannot be a stage: it has no method export(path)")
    temporary = path.with_suffix(".saving")
    try:
        model.export(temporary)
        os.replace(temporary, path)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)  # nothing half-written stays on a full disk
