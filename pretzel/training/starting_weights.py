"""Weights that a stage of training starts from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretzel.errors import UserError
from pretzel.files.torch_file import is_archive
from pretzel.files.weights import read_checkpoint, read_exported
from pretzel.typing import Tensor

SAMPLER = "sampler"
"""Name of the sampler's state among the metadata of exported weights."""

UNTRAINED = "untrained"
"""Name of the list of tensors that no stage has trained, in checkpoints and metadata."""

_INTERLEAVING = "pretzel.interleaving."


@dataclass(frozen=True, kw_only=True)
class StartingWeights:
    """Weights of an earlier stage.

    Attributes:
        state: Tensors by name, those of frozen parts left out.
        frozen: Names and identities of the frozen parts they were trained with, as far as known.
        sampler: State of the sampler.
        untrained: Names of the tensors that no stage has trained yet; None if that is not known,
            and all of them count as trained.
    """

    state: dict[str, Tensor]
    frozen: dict[str, str]
    sampler: dict[str, Any]
    untrained: frozenset[str] | None

    def over(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a module's state with what has been trained in the place of its own.

        A part of which no stage has trained anything starts as this one configures it, such as
        skips that are off in S1 and random in S3. So do parts of the interleaving that the stage
        before did not have. Everything else is taken as it is: whether it fits is for the module
        to check.
        """
        if self.untrained is None:
            return self.state
        begun = {_part(name) for name in self.state if name not in self.untrained}
        taken = {n: value for n, value in self.state.items() if _part(n) in begun}
        open_to_choice = {_part(name) for name in self.untrained} | {
            _part(name) for name in own if name.startswith(_INTERLEAVING)
        }
        kept = {n: value for n, value in own.items() if _part(n) in open_to_choice - begun}
        return kept | taken


def read_weights(path: Path, *, shapes_only: bool = False) -> StartingWeights:
    """Read exported weights, or the weights of a checkpoint and nothing else of it.

    Of a checkpoint with averaged weights these are the averages, which weight averaging keeps
    under ``state_dict``; optimizer and loops stay where they are. With ``shapes_only`` the tensors
    are on the meta device.

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
    if is_archive(path):
        try:
            content = read_checkpoint(path, shapes_only=shapes_only)
        except UserError as error:
            raise UserError(f"weights {error}") from error
    else:
        state, frozen = read_exported(path, shapes_only=shapes_only)
        try:
            own = {n: json.loads(frozen.pop(n)) for n in (SAMPLER, UNTRAINED) if n in frozen}
        except (ValueError, RecursionError) as error:
            raise UserError(f"weights {path}: its metadata is not what export wrote") from error
        content = {"state_dict": state, "frozen": frozen, **own}
    check_record(content, f"weights {path}")
    return StartingWeights(
        state=content["state_dict"],
        frozen=content.get("frozen", {}),
        sampler=content.get(SAMPLER, {}),
        untrained=frozenset(content[UNTRAINED]) if UNTRAINED in content else None,
    )


def check_record(checkpoint: Mapping[str, Any], what: str) -> None:
    """Refuse a checkpoint in which something beside the weights is of another kind than is written.

    Raises:
        UserError: Naming it; ``what`` begins the message.
    """
    frozen, untrained = checkpoint.get("frozen", {}), checkpoint.get(UNTRAINED, [])
    is_right = {
        "frozen": isinstance(frozen, dict) and _are_texts([*frozen, *frozen.values()]),
        SAMPLER: isinstance(checkpoint.get(SAMPLER, {}), dict),
        UNTRAINED: isinstance(untrained, list) and _are_texts(untrained),
    }
    for name in [name for name, right in is_right.items() if not right]:
        raise UserError(f"{what}: {name} is not what a run saves, got {checkpoint[name]!r:.60}")


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _part(name: str) -> str:
    """Return the part of a parameter: ``pretzel.interleaving.vlm_skip``."""
    return ".".join(name.split(".")[:3])
