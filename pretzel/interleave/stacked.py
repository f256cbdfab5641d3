"""Stacked: all layers of the VLM, then all layers of the flow, a skip around each (STARFlow2)."""

import torch
from torch import nn

from pretzel.flow.deep import DeepStream
from pretzel.interleave.base import Interleaving, StreamCaches, StreamInputs, StreamOutputs
from pretzel.interleave.whitening import Whitening
from pretzel.sequence import Document
from pretzel.typing import Float, Tensor
from pretzel.vlm.base import VLMStream


class Adapter(nn.Module):
    """Linear map from u into the embedding space of the VLM.

    Args:
        channels: Channels D of u.
        hidden_size: Hidden size of the vision-language model.
    """

    def __init__(self, *, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, hidden_size)

    def forward(self, u: Float[Tensor, "*b d"]) -> Float[Tensor, "*b h"]:
        """Map u."""
        out: Tensor = self.linear(u)
        return out


class Stacked(Interleaving):
    """The Pretzel of the paper.

    Image positions enter the VLM through the adapter. The deep stream reads P_in(u) + W_vlm y_vlm
    at image positions and P_txt(y_vlm) at text positions; text is predicted from
    y_vlm + W_D y_D. Both skips, W_vlm and W_D, are linear and start at zero: at step 0 text is
    exactly the VLM and vision a plain flow with a text prefix. What the flow reads of y_vlm is
    whitened, a fixed affine map.

    Args:
        channels: Channels D of u (given by the parent).
        hidden_size: Hidden size of the VLM (given by the parent).
        width: Width of the deep stream (given by the parent).
        vlm_skip: Whether W_vlm exists; without it image positions of the deep stream read u alone.
        deep_skip: Whether W_D exists; without it text is read off the VLM alone.
        detach_u: Stop gradients from the VLM into the shallow flow (an ablation).
        whiten: Whether P_txt and W_vlm read whitened states of the VLM, in place of raw ones.
    """

    reads_text = True
    answers = True
    feeds_vlm = True

    def __init__(
        self,
        channels: int,
        hidden_size: int,
        width: int,
        *,
        vlm_skip: bool = True,
        deep_skip: bool = True,
        detach_u: bool = False,
        whiten: bool = True,
    ) -> None:
        super().__init__()
        self.adapter = Adapter(channels=channels, hidden_size=hidden_size)
        self.whitening = Whitening(hidden_size=hidden_size) if whiten else None
        self.text_input = nn.Linear(hidden_size, width)
        self.vlm_skip = nn.Linear(hidden_size, width, bias=False) if vlm_skip else None
        self.deep_skip = nn.Linear(width, hidden_size, bias=False) if deep_skip else None
        for skip in (self.vlm_skip, self.deep_skip):
            if skip is not None:
                nn.init.zeros_(skip.weight)
        self.detach_u = detach_u

    def start_from(self, vlm: VLMStream) -> None:
        """Fit the whitening to the VLM."""
        if self.whitening is not None:
            self.whitening.fit(vlm)

    def view(self, document: Document) -> Document:
        """Return the whole document."""
        return document

    def forward(
        self,
        inputs: StreamInputs,
        vlm: VLMStream,
        deep: DeepStream,
        caches: StreamCaches | None = None,
    ) -> StreamOutputs:
        """Run the VLM, then the flow."""
        is_image = inputs.is_image[..., None]
        seen = inputs.u.detach() if self.detach_u else inputs.u
        embeddings = torch.where(is_image, self.adapter(seen), vlm.embed(inputs.tokens))
        y_vlm = vlm(embeddings, inputs.index, inputs.mask, caches.vlm if caches else None)
        read = y_vlm if self.whitening is None else self.whitening(y_vlm)
        at_image = deep.embed(inputs.u, inputs.positions)
        if self.vlm_skip is not None:
            at_image = at_image + self.vlm_skip(read)
        c = torch.where(is_image, at_image, self.text_input(read))
        y_deep = deep(c, inputs.positions, inputs.mask, caches.deep if caches else None)
        text = y_vlm if self.deep_skip is None else y_vlm + self.deep_skip(y_deep)
        return StreamOutputs(deep=y_deep, text=text)
