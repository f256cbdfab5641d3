"""Micro-batches: a batch run in parts, with the activations of one and the gradient of the whole.

A mean over the batch has counts that are known only when all parts have been run. So each part is
run without keeping what its gradient needs, the loss is taken over all of them, and its one
backward pass runs the parts once more, one after the other (activation checkpointing, Chen et al.
2016, arXiv 1604.06174). Processes exchange gradients once, and clipping, loss scaling, averages of
weights and checkpoints see one step.
"""

from collections.abc import Callable, Sequence

import torch
from torch.utils.checkpoint import checkpoint

from pretzel.latent.generative_model import Scores
from pretzel.sequence.document import Document
from pretzel.typing import Float, Tensor


def in_parts(function: Callable[..., Tensor], size: int | None, *rows: Tensor) -> Tensor:
    """Return what a function makes of tensors, ``size`` rows at a time; None for all."""
    if size is None:
        return function(*rows)
    parts = zip(*(torch.split(tensor, size) for tensor in rows), strict=True)
    return torch.cat([checkpoint(function, *part, use_reentrant=False) for part in parts])


def scored_in_parts(
    score: Callable[[Sequence[Document], Tensor], Scores],
    size: int | None,
    documents: Sequence[Document],
    x: Float[Tensor, "m n d"],
) -> Scores:
    """Return the scores of documents with their latents, ``size`` documents at a time."""
    if size is None:
        return score(documents, x)
    parts = []
    for start in range(0, len(documents), size):
        part = documents[start : start + size]
        num_images = sum(document.num_images for document in part)
        latents, x = x[:num_images], x[num_images:]
        parts.append(checkpoint(score, part, latents, use_reentrant=False))
    names = ("z", "u", "log_prob", "token_nll")
    return Scores(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
