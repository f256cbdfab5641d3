"""Unconditional: the flow alone."""

from dataclasses import replace

import torch
from torch import nn

from pretzel.flow.deep import DeepStream
from pretzel.interleave.base import Caches, Interleaving, StreamInputs, StreamOutputs
from pretzel.sequence.document import Document, Image
from pretzel.vlm.base import VLMStream


class Unconditional(Interleaving):
    """Models every image by itself after a learned start state; text is ignored.

    Args:
        channels: Channels D of u (given by the parent).
        hidden_size: Hidden size of the VLM (given by the parent).
        width: Width of the deep stream (given by the parent).
    """

    reads_text = False
    answers = False
    feeds_vlm = False

    def __init__(self, channels: int, hidden_size: int, width: int) -> None:
        super().__init__()
        self.start = nn.Parameter(0.02 * torch.randn(width))

    def view(self, document: Document) -> Document:
        """Return the first image of the document."""
        images = tuple(s for s in document.segments if isinstance(s, Image))
        return replace(document, segments=images[:1])

    def forward(
        self, inputs: StreamInputs, vlm: VLMStream, deep: DeepStream, caches: Caches = None
    ) -> StreamOutputs:
        """Run the flow."""
        at_image = deep.embed(inputs.u, inputs.positions)
        # In the place of begin-of-image, whose output gives the parameters of the first position
        c = torch.where(inputs.is_image[..., None], at_image, self.start)
        y_deep = deep(c, inputs.positions, inputs.deep_mask, caches.deep if caches else None)
        return StreamOutputs(deep=y_deep, text=None)
