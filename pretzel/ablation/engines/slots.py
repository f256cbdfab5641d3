"""Slots on this machine: how many cells at a time, and which GPU each one sees."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What cells share.

    Attributes:
        environments: What each slot adds to the environment of its cell.
    """

    environments: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, number: int | None, gpus: Sequence[int] | None, per_gpu: int) -> "Slots":
        """Return the slots that a user asks for.

        Args:
            number: Cells at a time; None for one for each GPU and place on it, or without GPUs
                for each core.
            gpus: The GPUs to use; None for all that there are, empty for none.
            per_gpu: Cells that share a GPU.

        Raises:
            UserError: If a number is below 1, or there is no such GPU.
        """
        for name, value in (("slots", number), ("per-gpu", per_gpu)):
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        there = _gpus()
        for gpu in gpus or ():
            if not 0 <= gpu < there:
                raise UserError(f"--gpus: no GPU {gpu}: there are {there}")
        used = list(range(there)) if gpus is None else list(gpus)
        if not used:
            alone = {"CUDA_VISIBLE_DEVICES": ""} if there else {}
            return cls(environments=(alone,) * (number or _cores()))
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = [visible[gpu] if visible else str(gpu) for gpu in used]
        every = [{"CUDA_VISIBLE_DEVICES": name} for _ in range(per_gpu) for name in names]
        number = number or len(every)
        return cls(environments=tuple(every[i % len(every)] for i in range(number)))


@dataclass
class Places:
    """Which slots are taken."""

    slots: Slots
    taken: set[int] = field(default_factory=set)

    @property
    def room(self) -> int:
        """The number of free slots."""
        return len(self.slots.environments) - len(self.taken)

    def take(self) -> tuple[int, dict[str, str]]:
        """Take the first free slot; return its number and what it adds to the environment."""
        place = next(i for i in range(len(self.slots.environments)) if i not in self.taken)
        self.taken.add(place)
        return place, self.slots.environments[place]

    def leave(self, place: int) -> None:
        """Free a slot."""
        self.taken.discard(place)


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
