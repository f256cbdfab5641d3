"""TextPrefix: the VLM only encodes the text before the image (STARFlow, arXiv 2506.06276)."""

import torch
from torch import nn

from pretzel.flow.deep import DeepStream
from pretzel.interleave.base import Caches, Interleaving, StreamInputs, StreamOutputs
from pretzel.interleave.whitening import Whitening
from pretzel.sequence.document import Document, Image
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
        super().start_from(vlm)
        if self.new_tokens is not None:
            self.new_tokens.head.requires_grad_(False)  # it predicts no text
        if self.whitening is not None:
            self.whitening.fit(vlm)

    def view(self, document: Document) -> Document:
        """Return the document up to its first image."""
        end = next((i for i, s in enumerate(document.segments) if isinstance(s, Image)), -1) + 1
        return Document(key=document.key, segments=document.segments[:end])

    def forward(
        self, inputs: StreamInputs, vlm: VLMStream, deep: DeepStream, caches: Caches = None
    ) -> StreamOutputs:
        """Encode the text before an image, or a prompt, then run the flow over all."""
        c = deep.embed(inputs.u, inputs.positions)
        is_read = self._is_read(inputs.is_image)
        if is_read.any():
            # The VLM keeps no cache: a prompt is encoded at once.
            assert caches is None or caches.deep.length == 0
            c = torch.where(is_read[..., None], self._encode(inputs, is_read, vlm), c)
        y_deep = deep(c, inputs.positions, inputs.deep_mask, caches.deep if caches else None)
        return StreamOutputs(deep=y_deep, text=None)

    def _encode(self, inputs: StreamInputs, is_read: Tensor, vlm: VLMStream) -> Tensor:
        """Return P_txt of the VLM's states where ``is_read``: it runs on no image position."""
        # Moves the columns that are read to the front, in order: the VLM runs on no others
        num_read = int(is_read.sum(dim=1).max())
        column = (~is_read).int().argsort(dim=1, stable=True)[:, :num_read]
        tokens, index = (values.gather(1, column) for values in (inputs.tokens, inputs.index))
        mask, positions = inputs.mask, inputs.positions
        if mask is not None:
            mask = mask.gather(2, column[:, None, :, None].expand(-1, 1, -1, mask.shape[3]))
            mask = mask.gather(3, column[:, None, None].expand(-1, 1, num_read, -1))
        axes = column[..., None].expand(-1, -1, positions.shape[2])
        # Nothing before the VLM trains but the embeddings of tokens that it lacks.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.new_tokens is not None):
            embeddings = self.embed(tokens, vlm)
            y_vlm = vlm(embeddings, index, mask, coordinates=positions.gather(1, axes)[..., 1:])
        read = y_vlm.to(self.text_input.weight.dtype)
        if self.whitening is not None:
            read = self.whitening(y_vlm)
        read = self.text_input(read)
        where = column[..., None].expand(-1, -1, read.shape[2])
        out: Tensor = read.new_zeros(*is_read.shape, read.shape[2]).scatter(1, where, read)
        return out

    @staticmethod
    def _is_read(is_image: Tensor) -> Tensor:
        """Return the text positions before an image of their row, or in a row without images."""
        followed = is_image.flip(1).int().cummax(dim=1).values.flip(1).bool()
        return ~is_image & (followed | ~is_image.any(dim=1, keepdim=True))
