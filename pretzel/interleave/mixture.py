"""MixtureOfTransformers: one transformer, weights of its own for each modality (BAGEL)."""

from torch import nn

from pretzel.errors import UserError
from pretzel.flow.deep import DeepStream
from pretzel.interleave.adapter import LinearAdapter
from pretzel.interleave.base import Caches, Interleaving, StreamInputs, StreamOutputs
from pretzel.interleave.routed import own_copy, routable, routed
from pretzel.vlm.base import VLMStream


class MixtureOfTransformers(Interleaving):
    """The flow inside the VLM: shared attention, weights by modality (arXiv 2505.14683).

    Every Linear and norm of the VLM's decoder layers, and its final norm, runs with the VLM's
    weights at text positions and with the flow's own at image positions. Attention, masks and
    caches remain the VLM's, so that both modalities attend to each other in every layer. Image
    positions enter by linear maps of u, P_in and an adapter; their last states go through a linear
    map to the deep stream's final norm and head. The deep stream has no layers of its own:
    ``split`` must give it 0.

    There are no skips: text before the first image is predicted exactly as the VLM does, whatever
    the flow has learnt, text behind an image is not.

    Args:
        channels: Channels D of u (given by the parent).
        hidden_size: Hidden size of the VLM (given by the parent).
        width: Width of the deep stream (given by the parent).
        trains_text: Whether text positions use trainable copies of the VLM's weights; the VLM
            itself stays frozen. Otherwise they use the VLM's.
        random_start: Whether the weights for image positions start random, in place of as copies.
    """

    answers = True
    feeds_vlm = True
    reads_text = True

    def __init__(
        self,
        channels: int,
        hidden_size: int,
        width: int,
        *,
        trains_text: bool = False,
        random_start: bool = False,
    ) -> None:
        super().__init__()
        self.trains_text = trains_text
        self.random_start = random_start
        # P_in is the deep stream's own embedding of u; this maps it into the VLM
        self.image_input = LinearAdapter(width, hidden_size)
        self.image_output = nn.Linear(hidden_size, width)
        # One for each Linear and norm of the VLM, in its order: see start_from.
        self.image_weights = nn.ModuleList()
        self.text_weights = nn.ModuleList()

    def start_from(self, vlm: VLMStream) -> None:
        """Copy the weights of the VLM's layers, all of which must be :func:`.routable`."""
        super().start_from(vlm)
        self.image_input.start_from(vlm)
        for module in _modules(vlm):
            self.image_weights.append(own_copy(module, random=self.random_start))
            if self.trains_text:
                self.text_weights.append(own_copy(module, random=False))

    def check_streams(self, vlm: VLMStream, deep: DeepStream) -> None:
        """Raise a UserError if the deep stream has layers of its own, which would not be used."""
        num_layers = getattr(deep.conditioner, "num_layers", None)
        if num_layers != 0:
            raise UserError(
                "split must give the deep stream 0 layers for MixtureOfTransformers, whose layers "
                f"are the VLM's, got {num_layers}"
            )

    def forward(
        self, inputs: StreamInputs, vlm: VLMStream, deep: DeepStream, caches: Caches = None
    ) -> StreamOutputs:
        """Run the VLM's layers with the weights of both."""
        at_image = self.image_input(deep.embed(inputs.u, inputs.positions))
        text_weights = list(self.text_weights) if self.trains_text else None
        with routed(_modules(vlm), text_weights, list(self.image_weights), inputs.is_image):
            states = self.run_over(at_image, inputs, vlm, caches)
        y_deep = deep(
            self.image_output(states.to(self.image_output.weight.dtype)),
            inputs.positions,
            inputs.deep_mask,
            caches.deep if caches else None,
        )
        return StreamOutputs(deep=y_deep, text=states)


def _modules(vlm: VLMStream) -> list[nn.Module]:
    """Return the Linears and norms of its layers, then its final norm."""
    return [*routable(vlm.decoder_layers()), *routable(vlm.final_norm)]
