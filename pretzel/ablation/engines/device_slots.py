"""DeviceSlots on this machine: how many cells at a time, and which GPUs each one sees."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DeviceSlots:
    """What cells share.

    Attributes:
        environments: What each slot adds to the environment of its cell.
    """

    environments: tuple[dict[str, str], ...]

    @classmethod
    def of(
        cls, number: int | None, gpus: Sequence[Sequence[int]] | None, per_gpu: int
    ) -> "DeviceSlots":
        """Return the slots that a user asks for.

        Args:
            number: Cells at a time; None for one for each group of GPUs and place on it, or
                without GPUs for each core.
            gpus: The GPUs to use, grouped by the cell that sees them (several where it trains on
                several); None for all that there are, each alone, empty for none.
            per_gpu: Cells that share a group of GPUs.

        Raises:
            UserError: If a number is below 1, there is no such GPU, or one is named twice.
        """
        for name, value in (("slots", number), ("per-gpu", per_gpu)):
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        there = _gpus()
        named = [gpu for group in gpus or () for gpu in group]
        for gpu in named:
            if not 0 <= gpu < there:
                raise UserError(f"--gpus: no GPU {gpu}: there are {there}")
            if named.count(gpu) > 1:
                raise UserError(f"--gpus must name each GPU once, got {gpu} {named.count(gpu)} x")
        used = [[gpu] for gpu in range(there)] if gpus is None else gpus
        if not used:
            alone = {"CUDA_VISIBLE_DEVICES": ""} if there else {}
            return cls(environments=(alone,) * (number or _cores()))
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = [",".join(visible[i] if visible else str(i) for i in group) for group in used]
        every = [{"CUDA_VISIBLE_DEVICES": name} for _ in range(per_gpu) for name in names]
        number = number or len(every)
        return cls(environments=tuple(every[i % len(every)] for i in range(number)))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))  # what a container or a scheduler leaves us
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _gpus() -> int:
    if not any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")):
        return 0  # not worth importing torch for
    # asked of the driver's library, so that no CUDA context is made: processes are forked later
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    import torch

    return torch.cuda.device_count()
