"""The smallest real Pretzel around an interleaving, and documents of every kind for it."""

import copy
from functools import cache, partial
from typing import Any

import torch

from pretzel.flow.af_block import AFBlock
from pretzel.flow.conditioner import ConditionerFactory
from pretzel.flow.deep import DeepStream
from pretzel.flow.mlp import MLP
from pretzel.flow.permutations import Flip, Permutation, Raster
from pretzel.flow.split import ExplicitSplit
from pretzel.flow.transformer import CausalTransformer
from pretzel.flow.transforms import AffineSoftplus
from pretzel.interleave.base import InterleavingFactory
from pretzel.latent.pixels import Pixels
from pretzel.model import Pretzel
from pretzel.sequence import Document, DocumentBatch, caption_document, question_document
from pretzel.testing.case import normal
from pretzel.vlm.base import VLMStream

PROMPTS = ("a red circle", "a shape", "a very small blue triangle, perhaps")
PAIRS = (("what color is the shape?", "red"), ("is it a circle?", "yes"))


def tiny_pretzel(
    interleaving: InterleavingFactory, *, image_size: int = 4, patch_size: int = 2
) -> Pretzel:
    """Return a model of a few thousand weights around the shipped vision-language model.

    Args:
        interleaving: The part on trial, or anything that makes one from the streams' sizes.
        image_size: Side of the images.
        patch_size: Side of a patch.
    """

    def shallow(
        channels: int, grid: tuple[int, ...], num_layers: int, permutation: Permutation
    ) -> AFBlock:
        return AFBlock(
            channels, grid, num_layers, permutation,
            transform=AffineSoftplus(), conditioner=transformer(width=16, head_dim=8),
        )  # fmt: skip

    def deep(channels: int, grid: tuple[int, ...], num_layers: int) -> DeepStream:
        return DeepStream(
            channels, grid, num_layers,
            transform=AffineSoftplus(), conditioner=transformer(width=24, head_dim=12),
        )  # fmt: skip

    return Pretzel(
        latent=Pixels(image_size=image_size, patch_size=patch_size, noise=0.1),
        split=ExplicitSplit(shallow=[1, 1], deep=1),
        permutations=[Raster(), Flip()],
        shallow=shallow,
        deep=deep,
        vlm=copy.deepcopy(_shipped()),
        interleaving=interleaving,
    )


def transformer(**options: Any) -> ConditionerFactory:  # noqa: ANN401
    """Return what makes a small transformer."""
    return partial(CausalTransformer, mlp=partial(MLP, ratio=2.0), **options)


@cache
def _shipped() -> VLMStream:
    from pretzel.vlm.tiny import TinyVLM  # imports transformers, which most parts do without

    return TinyVLM()


def documents() -> tuple[Document, ...]:
    """Return four documents of one image each: captions, a dropped caption, questions."""
    return (
        caption_document(PROMPTS[0], key="caption"),
        caption_document(PROMPTS[2], key="long caption"),
        caption_document(PROMPTS[0], key="dropped", dropped=True),
        question_document(PAIRS, key="questions"),
    )


def batch(model: Pretzel, dtype: torch.dtype = torch.float64) -> DocumentBatch:
    """Return the documents with images for a model."""
    size = model.latent.image_size
    images = normal(len(documents()), 3, size, size, key="images").tanh()
    return DocumentBatch(documents=documents(), images=images.to(dtype))
