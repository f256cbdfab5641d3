"""The file of a tiny vision-language model: weights, sizes and tokenizer in one safetensors file.

Next to the shipped ``NAME.safetensors`` lies ``NAME.safetensors.sha256`` with its hash, and next to
one that its stage writes, so that a half-copied or exchanged file is found out before anything
trains on it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pretzel.errors import UserError
from pretzel.typing import Tensor
from pretzel.vlm.tiny.network import TinyConfig, TinyNetwork
from pretzel.vlm.tiny.tokenizer import WordPieces

FORMAT = "pretzel.tiny_vlm.1"


@dataclass(frozen=True, kw_only=True)
class TinyWeights:
    """Content of a file of weights.

    Attributes:
        config: Sizes of the model.
        tokenizer: Its tokenizer.
        tensors: Its weights by name, float32.
        sha256: Hash of the file.
    """

    config: TinyConfig
    tokenizer: WordPieces
    tensors: dict[str, Tensor]
    sha256: str


def save_weights(path: Path, network: TinyNetwork, tokenizer: WordPieces) -> str:
    """Write a model, rounded to float16; return the hash of the file.

    Args:
        path: The file to write.
        network: The model.
        tokenizer: Its tokenizer.
    """
    tensors = {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in network.state_dict().items()
    }
    about = {
        "format": FORMAT,
        "config": asdict(network.config),
        "tokenizer": json.loads(tokenizer.serialize()),
    }
    # One entry only: safetensors writes several in random order, and the hash would change
    content = save(tensors, metadata={"pretzel": json.dumps(about, sort_keys=True)})
    _write(path, content)
    return hashlib.sha256(content).hexdigest()


def save_hash(path: Path, digest: str) -> None:
    """Write the hash of a file beside it, ``NAME.sha256``."""
    _write(_hash_file(path), f"{digest}\n".encode())


def load_weights(path: Path, *, needs_hash: bool = False) -> TinyWeights:
    """Read a file written by :func:`save_weights`, after checking the hash beside it.

    Args:
        path: The file.
        needs_hash: Whether there must be one.

    Raises:
        UserError: If the file or a hash that it needs is missing, they disagree, or the content is
            not that of a tiny vision-language model.
    """
    if not path.is_file():
        raise UserError(f"weights: no file {path}")
    beside = _hash_file(path)
    if needs_hash and not beside.is_file():
        raise UserError(f"weights: no file {beside}, which holds the hash of {path.name}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = beside.read_text().strip() if beside.is_file() else digest
    if digest != expected:
        raise UserError(f"weights: {path} has sha256 {digest}, but {beside.name} says {expected}")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("pretzel", "{}"))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"weights: {path} is not a safetensors file ({error})") from error
    if about.get("format") != FORMAT:
        raise UserError(
            f"weights: {path} must hold a tiny vision-language model ({FORMAT}), "
            f"got {about.get('format')}"
        )
    return TinyWeights(
        config=TinyConfig(**about["config"]),
        tokenizer=WordPieces(json.dumps(about["tokenizer"])),
        tensors=tensors,
        sha256=digest,
    )


def _hash_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
