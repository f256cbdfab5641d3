"""Tiled: layers of the VLM and of the flow in turn, by a word such as "VVF"."""

from typing import Literal

import torch
from torch import nn

from pretzel.flow.deep import DeepRun, DeepStream
from pretzel.interleave.adapter import AdapterFactory
from pretzel.interleave.base import Caches, StreamInputs, StreamOutputs
from pretzel.interleave.residual import ResidualReading, fit_readings
from pretzel.interleave.skips import SkipConnection, SkipFactory, ZeroSkip
from pretzel.interleave.tiling import check_layers, check_word, flow_layers_after
from pretzel.interleave.vision_input import VisionInput
from pretzel.interleave.vision_interleaving import VisionInterleaving
from pretzel.typing import Bool, Float, Tensor
from pretzel.vlm.base import VLMStream

Direction = Literal["both", "vlm_to_flow", "flow_to_vlm"]


class Tiled(VisionInterleaving):
    """Both streams side by side, joined at every border between their layers.

    A word over V (a decoder layer of the VLM) and F (a layer of the deep stream) is repeated until
    the layers of both are used up. Where F follows V, W_vf adds a reading of the VLM's
    residual stream to the flow's; where V follows F, W_fv adds the flow's residual stream to the
    VLM's. The flow starts at the first F from P_in(u) (plus a skip) at image positions and from
    P_txt(VLM), which is no skip and never zero, at text positions. Text is predicted from
    y_vlm + W y_D.

    Skips that start at zero leave text exactly the VLM and vision a plain flow with a text prefix.
    The frozen layers then run on a residual stream that they were not trained on as soon as a skip
    into the VLM moves; :class:`~pretzel.interleave.stacked.Stacked` spares them that.

    Args:
        channels: Channels D of u (given by the parent).
        hidden_size: Hidden size of the VLM (given by the parent).
        width: Width of the deep stream (given by the parent).
        word: The pattern of layers; it begins with V.
        direction: Which skips exist: from the VLM into the flow, from the flow into the VLM, both.
        skips: How skips start; None for :class:`~pretzel.interleave.skips.ZeroSkip`.
        whiten: Whether the flow reads whitened VLM states, over their root mean square.
        adapter: Maps the vision input into the VLM's embedding space; None for
            :class:`~pretzel.interleave.adapter.LinearAdapter`.
        vision_input: Features of images that the VLM receives; None for
            :class:`~pretzel.interleave.vision_input.FlowInput`.
        detach_u: Stop gradients from the adapter into the shallow flow (an ablation).

    Raises:
        UserError: If the word is none, or does not use up the layers of both streams.
    """

    def __init__(
        self,
        channels: int,
        hidden_size: int,
        width: int,
        *,
        word: str,
        direction: Direction = "both",
        skips: SkipFactory | None = None,
        whiten: bool = True,
        adapter: AdapterFactory | None = None,
        vision_input: VisionInput | None = None,
        detach_u: bool = False,
    ) -> None:
        super().__init__(
            channels, hidden_size, adapter=adapter, vision_input=vision_input, detach_u=detach_u
        )
        check_word(word)
        self.word = word
        self.into_flow = direction != "flow_to_vlm"
        self.into_vlm = direction != "vlm_to_flow"
        self.make_skip: SkipFactory = skips or ZeroSkip
        self.sizes = (hidden_size, width)
        self.whiten = whiten
        self.text_input = nn.Linear(hidden_size, width)
        self.last = self.make_skip(width, hidden_size) if self.into_vlm else None
        # By the layer of the VLM behind which they lie, whose number start_from learns. Initial
        # weights are drawn by parameters' names: another one than "links" would move every figure.
        self.flow_layers: tuple[int, ...] = ()
        self.readings = nn.ModuleDict()
        self.vlm_links = nn.ModuleDict()
        self.flow_links = nn.ModuleDict()

    def start_from(self, vlm: VLMStream) -> None:
        """Make the skips for the layers of this VLM; fit the adapter and the readings."""
        super().start_from(vlm)
        self.flow_layers = flow_layers_after(self.word, vlm.num_layers)
        borders = [number for number, count in enumerate(self.flow_layers) if count]
        hidden_size, width = self.sizes
        for number in borders:
            is_first = number == borders[0]
            # An image that enters the VLM only once complete has no states there while modelled
            has_skips = self.into_flow and (self.vision_input.is_causal or not is_first)
            if has_skips:
                self.vlm_links[str(number)] = self.make_skip(hidden_size, width)
            if has_skips or is_first:
                reading = ResidualReading(hidden_size=hidden_size, whiten=self.whiten)
                self.readings[str(number)] = reading
            if self.into_vlm and number + 1 < len(self.flow_layers):
                self.flow_links[str(number)] = self.make_skip(width, hidden_size)
        fit_readings({int(number): r for number, r in self.readings.items()}, vlm)  # type: ignore[misc]

    def check_streams(self, vlm: VLMStream, deep: DeepStream) -> None:
        """Raise a UserError if the word does not use up the layers of both streams."""
        check_layers(self.word, vlm.num_layers, getattr(deep.conditioner, "num_layers", 0))

    def skips_to_text(self) -> list[SkipConnection]:
        """Return the skips into the VLM and the one behind it, if they exist."""
        inner = [skip for skip in self.flow_links.values() if isinstance(skip, SkipConnection)]
        return inner if self.last is None else [*inner, self.last]

    def forward(
        self, inputs: StreamInputs, vlm: VLMStream, deep: DeepStream, caches: Caches = None
    ) -> StreamOutputs:
        """Run the VLM, and between its layers the flow's."""
        at_image = deep.embed(inputs.u, inputs.positions)
        cache = caches.deep if caches else None
        run = deep.begin(inputs.positions, at_image.dtype, inputs.deep_mask, cache)
        flow = _Flow(self, inputs.is_image, at_image, run)
        y_vlm = self.run_vlm(inputs, vlm, caches, flow.after_layer)
        if y_vlm is None:
            # Positions of an image that has not entered the VLM: no skip has a part in them
            y_deep = run.finish(run.advance(at_image, sum(self.flow_layers)))
            return StreamOutputs(deep=y_deep, text=None)
        y_deep = run.finish(flow.state)
        text = y_vlm if self.last is None else self.last(y_vlm, y_deep, flow.open_at)
        return StreamOutputs(deep=y_deep, text=text)


class _Flow:
    """The deep stream of one call, its residual stream on its way between the layers of the VLM."""

    def __init__(
        self,
        tiled: Tiled,
        is_image: Bool[Tensor, "b l"],
        at_image: Float[Tensor, "b l w"],
        run: DeepRun,
    ) -> None:
        self.tiled = tiled
        self.is_image = is_image
        self.state = at_image
        self.run = run
        # Where skips are open; None for everywhere
        self.open_at = None if tiled.vision_input.is_causal else ~is_image

    def after_layer(self, number: int, h: Float[Tensor, "b l h"]) -> Float[Tensor, "b l h"]:
        """Run the layers of the flow that follow one of the VLM's."""
        tiled, key = self.tiled, str(number)
        count = tiled.flow_layers[number]
        if not count:
            return h
        if key in tiled.readings:
            self._read(key, tiled.readings[key](h).to(tiled.text_input.weight.dtype))
        self.state = self.run.advance(self.state, count)
        if key in tiled.flow_links:
            h = tiled.flow_links[key](h, self.state, self.open_at)
        return h

    def _read(self, key: str, read: Float[Tensor, "b l h"]) -> None:
        """Let the VLM into the residual stream, or start it."""
        skips, starts = self.tiled.vlm_links, not self.run.done
        if key in skips:
            self.state = skips[key](self.state, read, None if starts else self.open_at)
        if starts:
            text = self.tiled.text_input(read)
            self.state = torch.where(self.is_image[..., None], self.state, text)
