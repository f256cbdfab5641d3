"""The file of a tiny vision-language model: weights, sizes and tokenizer in one safetensors file.

Its hash lies beside the shipped one and beside one that its stage writes
(:mod:`pretzel.files.checked`).
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.checked import checked_sha256
from pretzel.typing import Tensor
from pretzel.vlm.tiny.network import TinyConfig, TinyNetwork
from pretzel.vlm.tiny.tokenizer import WordPieces

FORMAT = "pretzel.tiny_vlm.1"


class TinyWeights(NamedTuple):
    """Content of a file of weights, in float32 by name, and the hash of the file."""

    config: TinyConfig
    tokenizer: WordPieces
    tensors: dict[str, Tensor]
    sha256: str


def save_weights(path: Path, network: TinyNetwork, tokenizer: WordPieces) -> None:
    """Write a model, rounded to float16."""
    # Half precision: half the size in the wheel, and less than the noise of its training
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
    with whole_file(path) as partial:
        partial.write_bytes(content)


def load_weights(path: Path, *, needs_hash: bool = False) -> TinyWeights:
    """Read a file written by :func:`save_weights`, after checking the hash beside it, if any.

    Raises:
        UserError: If the file or a hash that it needs is missing, they disagree, or the content is
            not that of a tiny vision-language model.
    """
    digest = checked_sha256(path, needs_hash=needs_hash)
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
