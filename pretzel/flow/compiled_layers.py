"""Layers compiled for training: once for all layers that are alike, however many there are.

A compiled layer takes its weights as arguments, so that blocks share it, and sizes of batch and
sequence are symbols, so that other sizes need no new one and a resumed run computes what the
interrupted one would have.
"""

import logging
import shutil
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from pretzel.flow.conditioner import Rotation
from pretzel.flow.decoding_operator import cxx
from pretzel.sequence.masks import Mask
from pretzel.typing import Float, Tensor

logger = logging.getLogger(__name__)


def run_compiled(
    layer: nn.Module,
    x: Float[Tensor, "b l w"],
    rotation: Rotation | None,
    mask: Mask | None,
    modulation: Float[Tensor, "b 6 1 w"] | None,
) -> Float[Tensor, "b l w"]:
    """Run a layer over whole sequences, compiled where it can be; else by its own code.

    Why one is not compiled is logged once.
    """
    reason = _why_not(x.device.type)
    if reason is None:
        try:
            out: Tensor = _compiled()(layer, x, rotation, mask, modulation)
            return out
        except torch._dynamo.exc.TorchDynamoException as error:
            words = " ".join(str(error).partition("Set TORCHDYNAMO_VERBOSE")[0].split())
            _FAILED.append(words[:300])
    elif x.device.type != "meta":
        _log(reason)
    return _run(layer, x, rotation, mask, modulation)


_FAILED: list[str] = []
"""Why a layer could not be compiled."""


def _run(
    layer: nn.Module,
    x: Tensor,
    rotation: Rotation | None,
    mask: Mask | None,
    modulation: Tensor | None,
) -> Tensor:
    out: Tensor = layer(x, rotation, mask, None, 0, modulation)
    return out


@cache
def _compiled() -> Any:  # noqa: ANN401
    return torch.compile(_run, dynamic=True)


def _why_not(device: str) -> str | None:
    """Return why nothing can be compiled for a device; None if it can."""
    if _FAILED:
        return _FAILED[0]
    if device == "cpu":
        return None if shutil.which(cxx()) else f"there is no C++ compiler {cxx()}"
    return None if device == "cuda" and find_spec("triton") else f"no compiler for {device}"


@cache
def _log(reason: str) -> None:
    logger.warning("compile: %s, so layers run uncompiled", reason)
