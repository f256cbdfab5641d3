"""The smallest real Pretzel around an interleaving, and documents of every kind for it."""

import copy
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.flow import (
    MLP,
    AFBlock,
    AffineSoftplus,
    CausalTransformer,
    DeepStream,
    ExplicitSplit,
    Flip,
    Raster,
)
from pretzel.flow.conditioner import ConditionerFactory
from pretzel.interleave.base import InterleavingFactory
from pretzel.latent.base import LatentSpace
from pretzel.latent.pixels import Pixels
from pretzel.model import Pretzel
from pretzel.sequence.document import Document, DocumentBatch, caption_document, question_document
from pretzel.testing.law_case import normal
from pretzel.vlm.base import VLMStream

PROMPTS = (
    "a red circle",
    "a shape",
    "a very small blue triangle, not red, not green, and perhaps a circle or a rectangle",
)
"""Shorter and longer than an image, the last longer than the first size that a cache may have."""
PAIRS = (("what color is the shape?", "red"), ("is it a circle?", "yes"))


def tiny_pretzel(
    interleaving: InterleavingFactory,
    *,
    image_size: int = 4,
    patch_size: int = 2,
    deep_layers: int | None = None,
    latent: LatentSpace | None = None,
    shipped: bool = False,
) -> Pretzel:
    """Return a model of a few thousand weights around a small vision-language model.

    Args:
        interleaving: The interleaving to test, or a factory of one.
        image_size: Side of the images.
        patch_size: Side of a patch.
        deep_layers: Layers of the deep stream, beside 4 of the vision-language model; None for the
            first of 1, 2, 4 and 0 that the interleaving takes.
        latent: Latent space; None for pixels of these sizes.
        shipped: Whether the vision-language model is the shipped one, in place of a smaller one of
            random weights.

    Raises:
        UserError: If the interleaving takes none of these.
    """
    vlm = _shipped() if shipped else _small(image_size, patch_size)
    narrow, wide = transformer(width=16, head_dim=8), transformer(width=24, head_dim=12)

    def build(num_layers: int) -> Pretzel:
        return Pretzel(
            latent=latent or Pixels(image_size=image_size, patch_size=patch_size, noise=0.1),
            split=ExplicitSplit(shallow=[1, 1], deep=num_layers),
            permutations=[Raster(), Flip()],
            shallow=partial(AFBlock, transform=AffineSoftplus(), conditioner=narrow),
            deep=partial(DeepStream, transform=AffineSoftplus(), conditioner=wide),
            vlm=copy.deepcopy(vlm),
            interleaving=interleaving,
        )

    if deep_layers is not None:
        return build(deep_layers)
    refusals = []
    for num_layers in (1, 2, 4, 0):
        try:
            return build(num_layers)
        except UserError as error:
            refusals.append(error)
    raise refusals[0]


def transformer(**options: Any) -> ConditionerFactory:  # noqa: ANN401
    """Return a factory of small transformers."""
    return partial(CausalTransformer, mlp=partial(MLP, ratio=2.0), **options)


def small_vlm(image_size: int = 4, patch_size: int = 2) -> VLMStream:
    """Return a small frozen model of random weights, with a vision tower for such images."""
    return copy.deepcopy(_small(image_size, patch_size))


@cache
def _shipped() -> VLMStream:
    from pretzel.vlm.tiny import TinyVLM  # imports transformers, which most parts do without

    return TinyVLM()


@cache
def _small(image_size: int, patch_size: int) -> VLMStream:
    """Return a small model with the shipped one's tokenizer, and a vision tower for such images."""
    from pretzel.vlm.tiny import TinyVLM
    from pretzel.vlm.tiny.network import TinyNetwork

    vlm = TinyVLM()
    config = replace(
        vlm.network.config,
        hidden_size=32, num_heads=2, intermediate_size=48,
        image_size=image_size, patch_size=patch_size,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        vlm.network = TinyNetwork(config)
        for name, parameter in vlm.network.named_parameters():
            if parameter.dim() == 2:  # far from linear, unlike the usual initialisation
                embeds = name.endswith("embed_tokens.weight")
                torch.nn.init.normal_(parameter, std=0.5 if embeds else config.hidden_size**-0.5)
    vlm.hidden_size = config.hidden_size
    vlm.identity = "tiny-vlm:random"
    vlm.freeze()
    return vlm


def documents() -> tuple[Document, ...]:
    """Return four documents of one image each: captions, a dropped caption, questions."""
    return (
        caption_document(PROMPTS[0], key="caption"),
        caption_document(PROMPTS[2], key="long caption"),
        caption_document(PROMPTS[0], key="dropped", dropped=True),
        question_document(PAIRS, key="questions"),
    )


def six_documents() -> tuple[Document, ...]:
    """Return documents of one image each, and text of different lengths."""
    one = question_document(PAIRS[1:], key="one question")
    return (*documents(), caption_document("a blue circle", key="other caption"), one)


def batch(model: Pretzel, dtype: torch.dtype = torch.float64) -> DocumentBatch:
    """Return the documents with images for a model."""
    images = normal(len(documents()), *model.latent.medium.shape, key="images").tanh()
    return DocumentBatch(documents=documents(), images=images.to(dtype))
