"""TextPrefix: the VLM only encodes the text before the image (STARFlow, arXiv 2506.06276)."""

import torch
from torch import nn

from pretzel.flow.deep import DeepStream
from pretzel.interleave.base import Interleaving, StreamCaches, StreamInputs, StreamOutputs
from pretzel.interleave.whitening import Whitening
from pretzel.sequence import Document, Image
from pretzel.typing import Tensor
from pretzel.vlm.base import VLMStream


class TextPrefix(Interleaving):
    """Text states of the VLM, begin-of-image included, are a causal prefix of the deep stream.

    Image positions never enter the VLM, and text after an image is not modelled: there is no
    image-to-text, and of the joint loss only the flow's remains.

    Args:
        channels: Channels D of u (given by the parent).
        hidden_size: Hidden size of the VLM (given by the parent).
        width: Width of the deep stream (given by the parent).
        whiten: Whether P_txt reads whitened states of the VLM, in place of raw ones.
    """

    reads_text = True
    answers = False
    feeds_vlm = False

    def __init__(self, channels: int, hidden_size: int, width: int, *, whiten: bool = True) -> None:
        super().__init__()
        self.whitening = Whitening(hidden_size=hidden_size) if whiten else None
        self.text_input = nn.Linear(hidden_size, width)

    def start_from(self, vlm: VLMStream) -> None:
        """Fit the whitening to the VLM."""
        if self.whitening is not None:
            self.whitening.fit(vlm)

    def view(self, document: Document) -> Document:
        """Return the document up to its first image."""
        end = next((i for i, s in enumerate(document.segments) if isinstance(s, Image)), -1) + 1
        return Document(key=document.key, segments=document.segments[:end])

    def forward(
        self,
        inputs: StreamInputs,
        vlm: VLMStream,
        deep: DeepStream,
        caches: StreamCaches | None = None,
    ) -> StreamOutputs:
        """Encode the columns that hold text before an image, then run the flow over all."""
        c = deep.embed(inputs.u, inputs.positions)
        end = self._prefix_length(inputs.is_image)
        if end:
            # The VLM keeps no cache: a prompt is encoded at once.
            assert caches is None or caches.deep.length == 0
            with torch.no_grad():
                y_vlm = vlm(
                    vlm.embed(inputs.tokens[:, :end]),
                    inputs.index[:, :end],
                    None if inputs.mask is None else inputs.mask[:, :, :end, :end],
                )
            read = y_vlm if self.whitening is None else self.whitening(y_vlm)
            prefix = torch.where(inputs.is_image[:, :end, None], c[:, :end], self.text_input(read))
            c = torch.cat([prefix, c[:, end:]], dim=1)
        y_deep = deep(c, inputs.positions, inputs.mask, caches.deep if caches else None)
        return StreamOutputs(deep=y_deep, text=None)

    @staticmethod
    def _prefix_length(is_image: Tensor) -> int:
        """Return the first column from which on no row has a text before its image."""
        has_image = is_image.any(dim=1)
        first = torch.where(has_image, is_image.int().argmax(dim=1), is_image.shape[1])
        return int(first.max())
