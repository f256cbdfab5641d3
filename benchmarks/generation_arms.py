"""Three ways to hold a conversation of texts and images.

*Ours* is :class:`pretzel.generation.state.GenerationState` as it is. *Re-encoding* throws both
caches away whenever it turns to a text or an image, and encodes the whole sequence so far in one
pass. *No caches* encodes the whole sequence for every token and every position.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.generation_script import Script, Trace, converse
from pretzel.generation.state import GenerationState
from pretzel.interleave.base import StreamInputs, StreamOutputs
from pretzel.model import Pretzel
from pretzel.sampling.guidance import Guidance
from pretzel.typing import Float, Tensor


def ours(model: Pretzel, script: Script) -> tuple[Float[Tensor, " k"], Trace]:
    """Hold the conversation with the caches kept."""
    return converse(GenerationState(model, 1, script.room(model)), script)


def reencoding(model: Pretzel, script: Script) -> tuple[Float[Tensor, " k"], Trace]:
    """Hold it with the caches made anew for each answer and each image."""
    state = Reencoding(model, 1, script.room(model))
    # Before the call: the state takes what it encodes anew off the list again.
    hook = model.interleaving.register_forward_pre_hook(
        lambda module, args: state.entered.append(args[0])
    )
    try:
        result, trace = converse(state, script)
    finally:
        hook.remove()
    trace.encoding = state.encoding
    return result, trace


class Reencoding(GenerationState):
    """A state that keeps no keys and values from one answer or image to the next.

    Attributes:
        entered: What has entered the streams.
        encoding: CPU seconds of encoding it anew, each time.
    """

    def __init__(self, model: Pretzel, num_rows: int, max_length: int) -> None:
        super().__init__(model, num_rows, max_length)
        self.entered: list[StreamInputs] = []
        self.encoding: list[float] = []

    def begin_image(self, guidance: Guidance) -> None:
        """Encode all anew, then as ever."""
        self._encode_anew()
        super().begin_image(guidance)

    def begin_text(self) -> int:
        """Encode all anew, then as ever."""
        self._encode_anew()
        return super().begin_text()

    def _encode_anew(self) -> None:
        begin = time.process_time()
        if self.entered:
            self._encode()
        self.encoding.append(time.process_time() - begin)

    def _encode(self) -> None:
        model = self.model
        everything = joined(self.entered, self.num_rows)
        assert everything.tokens.shape[1] == self.length
        self.caches = model.interleaving.new_caches(
            model.vlm, model.deep, self.num_rows, self.max_length
        )
        streams = model.interleaving(everything, model.vlm, model.deep, self.caches)
        self.deep_state, self.text_state = streams.deep[:, -1], streams.text[:, -1]
        self.entered = [everything]


def uncached(model: Pretzel, script: Script) -> tuple[Float[Tensor, " k"], Trace]:
    """Hold it with the whole sequence encoded for each token and each position."""
    entered: list[StreamInputs] = []

    def lengthen(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs, vlm, deep, _ = args
        entered.append(inputs)
        return joined(entered, len(inputs.tokens)), vlm, deep, None

    def cut(module: nn.Module, args: tuple[Any, ...], streams: StreamOutputs) -> StreamOutputs:
        new = entered[-1].tokens.shape[1]
        assert streams.text is not None
        return StreamOutputs(deep=streams.deep[:, -new:], text=streams.text[:, -new:])

    hooks = (
        model.interleaving.register_forward_pre_hook(lengthen),
        model.interleaving.register_forward_hook(cut),
    )
    try:
        return converse(GenerationState(model, 1, script.room(model)), script)
    finally:
        for hook in hooks:
            hook.remove()


def joined(chunks: Sequence[StreamInputs], rows: int) -> StreamInputs:
    """Return chunks as one.

    Args:
        chunks: What entered one after the other, of the rows alone or with those of a null branch
            behind them.
        rows: Rows asked for: missing ones are the others again, as where a null branch begins.
    """
    keys = sum(chunk.tokens.shape[1] for chunk in chunks)

    def of_rows(values: Tensor) -> Tensor:
        if len(values) >= rows:
            return values[:rows]
        return values.repeat(rows // len(values), *[1] * (values.dim() - 1))

    def of_columns(name: str) -> Tensor:
        return torch.cat([of_rows(getattr(chunk, name)) for chunk in chunks], dim=1)

    masks = []
    for chunk in chunks:
        assert chunk.mask is not None
        masks.append(of_rows(F.pad(chunk.mask, (0, keys - chunk.mask.shape[-1]))))
    return StreamInputs(
        tokens=of_columns("tokens"),
        is_image=of_columns("is_image"),
        u=of_columns("u"),
        index=of_columns("index"),
        positions=of_columns("positions"),
        mask=torch.cat(masks, dim=2),
    )
