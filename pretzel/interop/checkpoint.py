"""Reads published checkpoints without running code, and accounts for every key."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from pretzel.errors import UserError
from pretzel.files.torch_file import read_torch
from pretzel.typing import Tensor

# Where training scripts put the weights, and what wrappers put before their names.
_NESTS = ("model", "state_dict", "model_state_dict", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True, kw_only=True)
class KeyReport:
    """Account of every key of a checkpoint.

    Attributes:
        used: Name in our model of each tensor that is used, by its key.
        unused: Reason why a tensor is not used, by its key.
    """

    used: Mapping[str, str]
    unused: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"used {len(self.used)} keys, left {len(self.unused)}, missing 0"]
        lines += [f"  used    {key} -> {name}" for key, name in self.used.items()]
        lines += [f"  unused  {key}: {reason}" for key, reason in self.unused.items()]
        return "\n".join(lines)


class CheckpointKeys:
    """The tensors of a checkpoint by published key; each is used, or left for a reason.

    ``source`` is where they are from, the beginning of every message.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self.source = source
        self._tensors = tensors
        self._used: dict[str, str] = {}
        self._unused: dict[str, str] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def size(self, key: str, axis: int, *others: tuple[str, int]) -> int:
        """Return a size that several tensors share: the size that most of them have.

        A tensor that is missing or has the wrong shape is then the one that :meth:`take` refuses,
        and not the others (patterns of keys, each with its axis), which disagree with it.

        Raises:
            UserError: If there is none of them.
        """
        sizes: Counter[int] = Counter()
        for pattern, at in ((re.escape(key), axis), *others):
            for other, value in self._tensors.items():
                if re.fullmatch(pattern, other) and value.dim() > at:
                    sizes[value.shape[at]] += 1
        if not sizes:
            actual = f"shape {tuple(self.value(key).shape)}" if key in self else "no key"
            raise UserError(
                f"{self.source}: key {key} must have a shape of {axis + 1} axes or more, "
                f"found {actual}"
            )
        return sizes.most_common(1)[0][0]

    def any(self, pattern: str) -> bool:
        """Tell whether a whole pattern matches a key."""
        return any(re.fullmatch(pattern, key) for key in self._tensors)

    def take(self, key: str, shape: tuple[int, ...], name: str) -> Tensor:
        """Return a tensor, which must have the shape; count it as used by its name in our model."""
        if key not in self._tensors:
            raise UserError(f"{self.source}: key {key} must have shape {shape}, found no key")
        value = self._tensors[key]
        if tuple(value.shape) != shape:
            raise UserError(
                f"{self.source}: key {key} must have shape {shape}, found {tuple(value.shape)}"
            )
        self._used[key] = name
        return value

    def value(self, key: str) -> Tensor:
        """Return a tensor without counting it as used."""
        return self._tensors[key]

    def count(self, pattern: str) -> int:
        """Return one more than the largest number in the group of a pattern; 0 without a match."""
        matches = [re.match(pattern, key) for key in self._tensors]
        return max((int(match[1]) + 1 for match in matches if match), default=0)

    def leave(self, pattern: str, reason: str) -> None:
        """Leave every key that a whole pattern matches unused."""
        for key in self._tensors:
            if re.fullmatch(pattern, key) and key not in self._used:
                self._unused[key] = reason

    def report(self) -> KeyReport:
        """Return the account of all keys; refuse one that is neither used nor left."""
        unknown = [key for key in self._tensors if key not in self._used | self._unused]
        if unknown:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise UserError(
                f"{self.source}: key {unknown[0]} is unknown, expected no such key, found shape "
                f"{tuple(self._tensors[unknown[0]].shape)}{more}"
            )
        return KeyReport(used=dict(self._used), unused=dict(self._unused))


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors or torch file, by published key.

    The weights may lie under ``model``, ``state_dict``, ``model_state_dict`` or ``module``, and
    their names may begin with ``module.``, ``_orig_mod.`` or ``model.``, as data parallel, compiled
    and wrapped models write them.

    Raises:
        UserError: If there is no such file, it cannot be read without running code, or it holds no
            state dict.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: must hold a state dict, found {type(content).__name__}")
    while True:
        nest = next((n for n in _NESTS if isinstance(content.get(n), Mapping)), None)
        if nest is None:
            break
        content = content[nest]
    other = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if other or not content:
        first = f"{other[0]!r}, which is {type(content[other[0]]).__name__}" if other else "nothing"
        raise UserError(
            f"{path}: must hold a state dict, tensors by name, at the top or under "
            f"{', '.join(_NESTS)}; found {first}"
        )
    tensors = {str(key): value for key, value in content.items()}
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: must be a safetensors file ({error})") from error


def _torch(path: Path) -> Any:  # noqa: ANN401
    try:
        return read_torch(path)
    except UserError as error:
        advice = "give a safetensors file, or one of its state_dict() alone"
        raise UserError(f"{error}; {advice}") from error
