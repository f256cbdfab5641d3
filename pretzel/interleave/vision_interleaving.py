"""Base of the interleavings whose vision-language model receives the images."""

from abc import ABC

from typing_extensions import override

from pretzel.interleave.adapter import Adapter, AdapterFactory, LinearAdapter
from pretzel.interleave.base import Caches, Interleaving, StreamCaches, StreamInputs
from pretzel.interleave.vision_input import FlowInput, VisionInput
from pretzel.typing import Float, Tensor
from pretzel.vlm.base import AfterLayer, VLMStream


class VisionInterleaving(Interleaving, ABC):
    """Image positions enter the vision-language model through an adapter.

    Args:
        channels: Channels D of u.
        hidden_size: Hidden size of the vision-language model.
        adapter: Maps the vision input into its embedding space; None for a linear map.
        vision_input: Features of images that it receives; None for u.
        detach_u: Stop gradients from the vision-language model into the shallow flow.
    """

    answers = True
    feeds_vlm = True
    reads_text = True

    def __init__(
        self,
        channels: int,
        hidden_size: int,
        *,
        adapter: AdapterFactory | None,
        vision_input: VisionInput | None,
        detach_u: bool,
    ) -> None:
        super().__init__()
        make_adapter: AdapterFactory = adapter or LinearAdapter
        self.vision_input: VisionInput = vision_input or FlowInput()
        self.vision_width = self.vision_input.width(channels, hidden_size)
        self.adapter: Adapter = make_adapter(self.vision_width, hidden_size)
        self.detach_u = detach_u

    def start_from(self, vlm: VLMStream) -> None:
        """Fit the adapter to the VLM."""
        super().start_from(vlm)
        self.adapter.start_from(vlm)

    def run_vlm(
        self,
        inputs: StreamInputs,
        vlm: VLMStream,
        caches: Caches,
        after_layer: AfterLayer | None = None,
    ) -> Float[Tensor, "b l h"] | None:
        """Return y_vlm; None at positions of an image that enters the VLM only once complete."""
        vision = inputs.u if inputs.vision is None else inputs.vision
        if inputs.vision is None and not self.vision_input.is_causal:
            if inputs.is_image.all():
                return None
            # No image in this chunk, which is all text.
            vision = inputs.u.new_zeros(*inputs.u.shape[:2], self.vision_width)
        if self.detach_u:
            vision = vision.detach()
        return self.run_over(self.adapter(vision), inputs, vlm, caches, after_layer)

    @override
    def text_alone(self, inputs: StreamInputs, vlm: VLMStream) -> Float[Tensor, "b l h"]:
        states = self.run_vlm(inputs, vlm, None)
        assert states is not None  # whole sequences begin with text
        return states

    def commit_image(self, inputs: StreamInputs, vlm: VLMStream, caches: StreamCaches) -> None:
        """Run the VLM over an image that has just been completed, and commit it to its cache.

        Only for a vision input that is not causal, which the inputs, the positions of the image,
        hold: otherwise the cache has the image already, as the deep stream's has.
        """
        assert inputs.vision is not None
        self.run_vlm(inputs, vlm, caches)
