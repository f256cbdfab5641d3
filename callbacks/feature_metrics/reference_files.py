"""Features of real images on disk: computed once for a split and an extractor, found by content."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info

from callbacks.feature_extractors import FeatureExtractor
from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.cache_folder import cache_folder
from pretzel.files.torch_file import read_torch

_ARRAYS: list[Any] = [  # what an array of numbers is made of again, and nothing else
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np.ndarray,
    np.dtype,
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
]


def reference_file(images: str, extractor: FeatureExtractor, kind: str) -> Path | None:
    """Return the file of what is kept of real images; None where features are not.

    Its name is that of torch-fidelity's cache, which reads those of the standard Inception:
    ``input2_cache_name`` is the part before the first dash, ``cache_root`` the folder.

    Args:
        images: Hash of all that the images depend on.
        extractor: Computes their features; its facts, weights and resize among them, count.
        kind: What is kept, such as ``stat-fid``.
    """
    if extractor.file_names is None:
        return None
    text = json.dumps([images, extractor.facts()], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    network, layer = extractor.file_names
    return cache_folder("references") / f"{key}-{network}-{kind}-{layer}.pt"


def read_reference(path: Path | None) -> Any:  # noqa: ANN401
    """Return what is kept; None if there is nothing, or it is damaged, which is said."""
    if path is None or not path.is_file():
        return None
    try:
        with torch.serialization.safe_globals(_ARRAYS):
            return read_torch(path)
    except (OSError, UserError) as error:
        rank_zero_info(f"features of real images are computed anew: {error}")
        return None


def write_reference(path: Path, state: object) -> None:
    """Keep what was computed; where the folder cannot be written, say so and go on."""
    try:
        with whole_file(path) as partial:
            torch.save(state, partial)
    except OSError as error:
        rank_zero_info(f"features of real images are not kept for other runs: {error}")
