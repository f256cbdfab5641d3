"""Stacked: all layers of the VLM, then all layers of the flow, a skip around each (STARFlow2)."""

import torch
from torch import nn

from pretzel.flow.deep import DeepStream
from pretzel.interleave.adapter import AdapterFactory
from pretzel.interleave.base import Caches, StreamInputs, StreamOutputs
from pretzel.interleave.skips import SkipConnection, SkipFactory, ZeroSkip
from pretzel.interleave.vision_input import VisionInput
from pretzel.interleave.vision_interleaving import VisionInterleaving
from pretzel.interleave.whitening import Whitening
from pretzel.vlm.base import VLMStream


class Stacked(VisionInterleaving):
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
        skips: How both skips start; None for :class:`~pretzel.interleave.skips.ZeroSkip`.
        adapter: Maps the vision input into the VLM's embedding space; None for
            :class:`~pretzel.interleave.adapter.LinearAdapter`.
        vision_input: Features of images that the VLM receives; None for
            :class:`~pretzel.interleave.vision_input.FlowInput`.
    """

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
        skips: SkipFactory | None = None,
        adapter: AdapterFactory | None = None,
        vision_input: VisionInput | None = None,
    ) -> None:
        super().__init__(
            channels, hidden_size, adapter=adapter, vision_input=vision_input, detach_u=detach_u
        )
        make_skip: SkipFactory = skips or ZeroSkip
        self.whitening = Whitening(hidden_size=hidden_size) if whiten else None
        self.text_input = nn.Linear(hidden_size, width)
        # An image that enters the VLM only once complete has no y_vlm while it is modelled
        has_vlm_skip = vlm_skip and self.vision_input.is_causal
        self.vlm_skip = make_skip(hidden_size, width) if has_vlm_skip else None
        self.deep_skip = make_skip(width, hidden_size) if deep_skip else None

    def start_from(self, vlm: VLMStream) -> None:
        """Fit the whitening and the adapter to the VLM."""
        super().start_from(vlm)
        if self.whitening is not None:
            self.whitening.fit(vlm)

    def skips_to_text(self) -> list[SkipConnection]:
        """Return W_D, if it exists."""
        return [] if self.deep_skip is None else [self.deep_skip]

    def forward(
        self, inputs: StreamInputs, vlm: VLMStream, deep: DeepStream, caches: Caches = None
    ) -> StreamOutputs:
        """Run the VLM, then the flow."""
        y_vlm = self.run_vlm(inputs, vlm, caches)
        # STARFlow2 (arXiv 2605.08029): c_t = P_in(u_t) + W_vlm y_vlm,t at image positions and
        # P_txt(y_vlm,t) at text positions; the language head reads y_vlm + W_D y_D
        at_image = deep.embed(inputs.u, inputs.positions)
        if y_vlm is None:
            c = at_image
        else:
            read = y_vlm.to(self.text_input.weight.dtype)
            if self.whitening is not None:
                read = self.whitening(y_vlm)
            if self.vlm_skip is not None:
                at_image = self.vlm_skip(at_image, read, inputs.is_image)
            c = torch.where(inputs.is_image[..., None], at_image, self.text_input(read))
        y_deep = deep(c, inputs.positions, inputs.deep_mask, caches.deep if caches else None)
        if y_vlm is None:
            return StreamOutputs(deep=y_deep, text=None)
        text = y_vlm if self.deep_skip is None else self.deep_skip(y_vlm, y_deep, ~inputs.is_image)
        return StreamOutputs(deep=y_deep, text=text)
