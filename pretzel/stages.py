"""What a stage of training moves, and the weights it starts from."""

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.typing import Tensor
from pretzel.weights import read_exported

SAMPLER = "sampler"
"""Name of the sampler's state among the metadata of exported weights."""


@dataclass(frozen=True, kw_only=True)
class StartingWeights:
    """Weights of an earlier stage.

    Attributes:
        state: Tensors by name, those of frozen parts left out.
        frozen: Names and identities of the frozen parts they were trained with, as far as known.
        sampler: State of the sampler.
    """

    state: dict[str, Tensor]
    frozen: dict[str, str]
    sampler: dict[str, Any]


def read_weights(path: Path, *, shapes_only: bool = False) -> StartingWeights:
    """Read exported weights, or the weights of a checkpoint and nothing else of it.

    Of a checkpoint with averaged weights these are the averages, which weight averaging keeps
    under ``state_dict``; optimizer and loops stay where they are.

    Args:
        path: What ``export`` wrote, or a checkpoint of Lightning.
        shapes_only: Read names and shapes alone; the tensors are on the meta device.

    Raises:
        UserError: If it is neither, or only part of a checkpoint.
    """
    if path.is_dir():
        raise UserError(
            f"weights must name one file, got the folder {path}; a sharded checkpoint is made one "
            "by python -m lightning.pytorch.utilities.consolidate_checkpoint"
        )
    if not path.exists():
        raise UserError(
            f"weights must name a file that export wrote, or the checkpoint of the stage before, "
            f"got {path}: no such file"
        )
    if not zipfile.is_zipfile(path):
        state, metadata = read_exported(path, shapes_only=shapes_only)
        sampler = json.loads(metadata.pop(SAMPLER, "{}"))
        return StartingWeights(state=state, frozen=metadata, sampler=sampler)
    try:
        checkpoint = torch.load(
            path, map_location="meta" if shapes_only else "cpu", weights_only=True, mmap=True
        )
    except Exception as error:  # torch raises half a dozen types, one for each kind of damage
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"weights {path}: not a weights-only checkpoint ({reason})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"weights {path}: a checkpoint must hold a state_dict, this one does not")
    return StartingWeights(
        state=checkpoint["state_dict"],
        frozen=checkpoint.get("frozen", {}),
        sampler=checkpoint.get("sampler", {}),
    )


def beginning(argument: str, name: str, names: Iterable[str]) -> str:
    """Return the beginning of parameter names that a user gave.

    Args:
        argument: Where it was given, for the message.
        name: The beginning; one that ends in ``?`` may begin no name, for parts that some arms
            lack.
        names: All names.

    Raises:
        UserError: If it begins none and does not end in ``?``.
    """
    prefix = name.removesuffix("?")
    if not prefix or (prefix == name and not any(n.startswith(prefix) for n in names)):
        roots = sorted({n.split(".")[0] for n in names})
        raise UserError(
            f"{argument}: {name!r} must begin the name of a trainable parameter, which start with "
            f"{roots}, or end in '?'"
        )
    return prefix


def train_only(trains: Sequence[str], parameters: dict[str, torch.nn.Parameter]) -> None:
    """Turn the gradients of all other parameters off.

    Args:
        trains: Beginnings of names, as :func:`beginning` takes them.
        parameters: Everything that could train.

    Raises:
        UserError: If a name is wrong, or nothing is left to train.
    """
    chosen = tuple(beginning("trains", name, parameters) for name in trains)
    if not any(name.startswith(chosen) for name in parameters):
        raise UserError(f"trains must leave something to train, got {list(trains)}")
    for name, parameter in parameters.items():
        if not name.startswith(chosen):
            parameter.requires_grad_(False)
