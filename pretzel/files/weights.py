"""Files of weights: read without code, refused in one sentence where they do not fit."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file

from pretzel.errors import UserError
from pretzel.files.checked import checked_sha256, save_sha256
from pretzel.files.torch_file import is_archive, read_torch
from pretzel.typing import Tensor

_DIGEST = "sha256"  # its name among the metadata


def read_exported(
    path: Path, *, shapes_only: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file, as ``export`` writes it.

    With ``shapes_only`` names and shapes alone are read; the tensors are on the meta device.

    Raises:
        UserError: If there is no such file, it is no safetensors file, or its content is not that
            of the hash in it, if there is one.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"weights must name a file that export wrote, got {path}: {found}")
    try:
        with safe_open(path, framework="pt") as file:
            names: list[str] = file.keys()
            if shapes_only:
                shapes = {name: file.get_slice(name).get_shape() for name in names}
                state = {name: torch.empty(shapes[name], device="meta") for name in names}
            else:
                state = {name: file.get_tensor(name) for name in names}
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"weights must name a file that export wrote, got {path}: {error}"
        ) from error
    recorded = metadata.pop(_DIGEST, None)
    if recorded is not None and not shapes_only and recorded != _digest(state, metadata):
        raise UserError(f"{path}: damaged: its content does not have the hash on record")
    return state, metadata


def read_checkpoint(path: Path, *, shapes_only: bool = False) -> dict[str, Any]:
    """Return a checkpoint of Lightning, read without running any code of it.

    With ``shapes_only`` the tensors are on the meta device.

    Raises:
        UserError: If there is no such file, it is sharded, or it is no checkpoint.
    """
    if path.is_dir():
        raise UserError(
            f"{path} is a sharded checkpoint; make it one file by "
            "python -m lightning.pytorch.utilities.consolidate_checkpoint"
        )
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not is_archive(path):
        raise UserError(f"{path}: not a weights-only checkpoint (not a file of torch.save)")
    checkpoint = read_torch(path, "meta" if shapes_only else "cpu")
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path}: a checkpoint must hold a state_dict, this one does not")
    _check_state(checkpoint["state_dict"], path)
    return checkpoint


def _check_state(state: object, path: Path) -> None:
    if not isinstance(state, dict):
        kind = type(state).__name__
        raise UserError(f"{path}: state_dict must hold tensors by name, got a {kind}")
    for name, value in state.items():
        # a module may keep a state of its own kind under the second
        if not (isinstance(value, Tensor) or str(name).endswith("_extra_state")):
            kind = type(value).__name__
            raise UserError(f"{path}: state_dict must hold tensors by name, got a {kind} as {name}")


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that those may read who may read its folder.

    By itself safetensors leaves it to its owner, and a cluster has several users. Tensors must be
    contiguous, none sharing memory with another.

    Raises:
        OSError, SafetensorError: If it cannot be written.
    """
    save_file(dict(tensors), path, metadata=dict(metadata))
    path.chmod(path.parent.stat().st_mode & 0o666)


def save_exported(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write weights for :func:`read_exported`: as :func:`save_tensors`, with a hash of all of it.

    Raises:
        OSError, SafetensorError: If it cannot be written.
    """
    save_tensors(tensors, path, {**metadata, _DIGEST: _digest(tensors, metadata)})


def exported_hash(path: Path) -> str:
    """Return a hash of tensors and metadata: files written alike differ in the order of the latter.

    Raises:
        UserError: As :func:`read_exported`.
    """
    return _digest(*read_exported(path))


def save_half(state: Mapping[str, Tensor], path: Path) -> None:
    """Write weights in half precision, and beside them ``<path>.sha256``."""
    path.write_bytes(save({name: tensor.half().contiguous() for name, tensor in state.items()}))
    save_sha256(path)


def load_half(path: Path) -> dict[str, Tensor]:
    """Return in single precision what :func:`save_half` wrote.

    Raises:
        UserError: If a file is missing or the hash differs.
    """
    checked_sha256(path, needs_hash=True)
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def _digest(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    text = json.dumps([content_hash(state), dict(metadata)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_architecture(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Refuse a state with other names or shapes than the module's own.

    ``what`` says where it is from, the beginning of the message.

    Raises:
        UserError: Naming the first tensor that does not fit, and the number of others.
    """
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more differences)" if len(problems) > 1 else ""
        raise UserError(f"{what} must be of the configured architecture, but {problems[0]}{more}")


def check_frozen(own: Mapping[str, str], frozen: Mapping[str, str], what: str) -> None:
    """Refuse weights that were trained around other frozen parts, as far as they are known.

    Both mappings hold identities by the name of the part; ``what`` begins the message.

    Raises:
        UserError: If a frozen part differs.
    """
    for name, identity in frozen.items():
        if own.get(name) != identity:
            raise UserError(
                f"{what} must be used with the {name} it was trained with, {identity}, "
                f"got {own.get(name)}"
            )


def content_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values of a state."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
