"""Building on the meta device: finds arguments that a constructor refuses, without memory."""

from collections.abc import Callable
from typing import TypeVar

import torch
from lightning.pytorch import LightningModule

from pretzel.errors import UserError
from pretzel.runs.seeding_guard import built_without_seeding

M = TypeVar("M", bound=LightningModule)


def built_without_memory(build: Callable[[], M]) -> M | None:
    """Return the module that ``build`` makes on the meta device, or None if a part cannot be there.

    The state of the random numbers is not moved.

    Raises:
        UserError: If a constructor refuses its arguments, or seeds the global random states.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return built_without_seeding(build)
    except (UserError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None:  # the parser wraps what a constructor raised
            if isinstance(cause, RuntimeError):  # torch's own, no user's mistake
                return None
            cause = cause.__cause__
        raise
