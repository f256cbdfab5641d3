"""Slots on this machine: how many runs at a time, and the GPUs that each one sees."""

import os
from collections.abc import Sequence

from pretzel.errors import UserError


def device_slots(
    number: int | None, gpus: Sequence[Sequence[int]] | None, per_gpu: int
) -> list[dict[str, str]]:
    """Return the variables that each slot adds to the environment of its run.

    Args:
        number: Runs at a time; None for one for each group of GPUs and place on it, or without
            GPUs for each core.
        gpus: The GPUs to use, grouped by the run that sees them (several where it trains on
            several); None for all that there are, each alone, empty for none.
        per_gpu: Runs that share a group of GPUs.

    Raises:
        UserError: If a number is below 1, there is no such GPU, or one is named twice.
    """
    for name, value in (("slots", number), ("per-gpu", per_gpu)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    num_gpus = _num_gpus()
    chosen = [gpu for group in gpus or () for gpu in group]
    for gpu in chosen:
        if not 0 <= gpu < num_gpus:
            raise UserError(f"--gpus: no GPU {gpu}: there are {num_gpus}")
        if chosen.count(gpu) > 1:
            raise UserError(f"--gpus must name each GPU once, got {gpu} {chosen.count(gpu)} x")
    groups = [[gpu] for gpu in range(num_gpus)] if gpus is None else gpus
    if not groups:
        no_gpu = {"CUDA_VISIBLE_DEVICES": ""} if num_gpus else {}
        return [no_gpu] * (number or num_cores())
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = [",".join(visible[i] if visible else str(i) for i in group) for group in groups]
    # once round all groups before a GPU is shared
    places = [{"CUDA_VISIBLE_DEVICES": name} for _ in range(per_gpu) for name in names]
    return [places[i % len(places)] for i in range(number or len(places))]


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))  # what a container or a scheduler leaves us
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _num_gpus() -> int:
    if not any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")):
        return 0  # not worth importing torch for
    # asked of the driver's library, so that no CUDA context is made: processes are forked later
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    import torch

    return torch.cuda.device_count()
