"""One decoding step of an autoregressive block: from x of a position to the parameters of the next.

Input map, layers, final norm and head are laid out once for each cache, as layers are
(:mod:`pretzel.flow.decoding`): embeddings of positions lie in the biases of the input map, the gain
of the final norm in the weights of the head. A law compares it with the block's own code.
"""

from collections.abc import Sequence

import torch
from torch import nn

from pretzel.flow.cache import KVCache
from pretzel.flow.compiled_decoding import run_layers
from pretzel.flow.conditioner import Conditioner, ConditionerCache, Modulation, Rotation
from pretzel.flow.decoding import Layout, layout_of, product
from pretzel.flow.transformer import CausalTransformer
from pretzel.typing import Float, Tensor


class DecodingStep:
    """The step of one cache; every position has its embedding and its rotation."""

    def __init__(
        self,
        layout: Layout,
        embed: nn.Linear,
        head: nn.Linear,
        places: Sequence[tuple[Tensor | None, Rotation | None]],
    ) -> None:
        self.layout = layout
        gain = 1.0 if layout.final_norm is None else layout.final_gain
        self.head = product([head], gain)
        self.embed, bias = product([embed])
        none = self.embed.new_zeros(self.embed.shape[1]) if bias is None else bias
        self.biases = [none if e is None else (none + e).squeeze(-2) for e, _ in places]
        self.rotations = [rotation for _, rotation in places]

    def __call__(
        self,
        previous: Float[Tensor, "b d"],
        index: int,
        cache: ConditionerCache,
        modulation: Modulation | None,
    ) -> Float[Tensor, "b p"]:
        """Return the raw parameters of position ``index``; commit the one before to the cache."""
        assert isinstance(cache, KVCache)
        layout = self.layout
        place = layout.place(cache, 1, self.rotations[index], None)
        states = torch.addmm(self.biases[index], previous, self.embed)
        states = run_layers(layout, states, place, cache, layout.numbers, modulation)
        cache.commit(1)
        return self.head(states if layout.final_norm is None else layout.final_norm(states))


def decoding_step(
    conditioner: Conditioner,  # type: ignore[type-arg]
    cache: ConditionerCache,
    embed: nn.Module,
    head: nn.Module,
    places: Sequence[tuple[Tensor | None, Rotation | None]],
    *,
    is_modulated: bool,
) -> DecodingStep | None:
    """Return the step of a cache; None where a part must run its own code."""
    if type(conditioner) is not CausalTransformer or not isinstance(cache, KVCache):
        return None
    if type(embed) is not nn.Linear or type(head) is not nn.Linear:
        return None
    if any(m._forward_hooks or m._forward_pre_hooks for m in (conditioner, embed, head)):
        return None
    layers, norm = conditioner.layers, conditioner.final_norm
    layout = layout_of(layers, norm, cache, is_modulated=is_modulated)
    if layout is None:
        return None
    with torch.inference_mode(mode=False), torch.no_grad():
        return DecodingStep(layout, embed, head, places)
