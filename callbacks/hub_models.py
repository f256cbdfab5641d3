"""Models of transformers that measure images, loaded from a folder or the hub."""

import re
from pathlib import Path
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.files.pretrained import check_complete, refused


def last_part(owner: str, model: str) -> str:
    """Return the last part of a folder or hub id, as it stands in the names of metrics.

    Raises:
        UserError: If there is none, naming the owner of the argument ``model``.
    """
    part = re.sub(r"[^a-z0-9-]+", "-", Path(model).name.lower()).strip("-")
    if not part:
        raise UserError(f"{owner}: model must be a folder or a hub id, got {model!r}")
    return part


def load_model(owner: str, kind: str, model: str, network: Any, processor: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return a frozen model in evaluation mode, and its processor.

    Args:
        owner: Class whose argument ``model`` is.
        kind: Name of such models.
        model: Local folder or hub id.
        network: Class of transformers to load it with.
        processor: Class of transformers to load its processor with.

    Raises:
        UserError: If one of them cannot be loaded, or weights or a package are missing.
    """
    sentence = (
        f"{owner}: model {model!r} cannot be loaded: give the local folder of a {kind} saved with "
        "its processor, or a hub id where the hub is reachable"
    )
    package = f"{owner}: model {model!r} needs a package that is not installed"
    with refused(sentence, package), torch.random.fork_rng(devices=[]):
        loaded, info = network.from_pretrained(
            model, trust_remote_code=False, output_loading_info=True
        )
        read = processor.from_pretrained(model, trust_remote_code=False)
    check_complete(f"{owner}: {model}", info["missing_keys"], info["mismatched_keys"])
    return loaded.train(False).requires_grad_(False), read
