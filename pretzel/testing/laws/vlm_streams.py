"""The laws of vision-language model streams."""

import math
from itertools import pairwise

import torch

from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import FP32, FP64, Case, normal
from pretzel.typing import Bool, Float, Int, Tensor
from pretzel.vlm.base import VLMStream

PADDING = (0, 6, 3, 1, 17, 2)
"""Missing positions on the left of each row."""
LENGTH = 37
PROMPT = 18


class Sequences:
    """Rows of embeddings for a model, of different lengths, padded on the left."""

    def __init__(self, vlm: VLMStream, *, padded: bool = True) -> None:
        self.vlm = vlm
        rows = len(PADDING)
        missing = torch.tensor(PADDING) * padded
        self.x: Float[Tensor, "b l h"] = vlm.text_scale() * normal(rows, LENGTH, vlm.hidden_size)
        self.valid: Bool[Tensor, "b l"] = torch.arange(LENGTH) >= missing[:, None]
        self.index: Int[Tensor, "b l"] = (self.valid.cumsum(1) - 1).clamp(min=0)
        lower = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
        eye = torch.eye(LENGTH, dtype=torch.bool)
        self.mask: Bool[Tensor, "b 1 l k"] = ((lower & self.valid[:, None]) | eye)[:, None]
        weight = next(vlm.parameters())
        self.tolerance = FP64 if weight.dtype == torch.float64 else FP32

    def run(self, x: Float[Tensor, "b l h"]) -> Float[Tensor, "b l h"]:
        """Return the states of whole rows."""
        states: Tensor = self.vlm(x, self.index, self.mask, None, self._coordinates(x))
        return states

    def _coordinates(self, x: Tensor) -> Int[Tensor, "b l 2"]:
        return torch.zeros(*x.shape[:2], 2, dtype=torch.int64)

    def chunks(
        self, *edges: int, rows: Int[Tensor, " k"] | None = None, cache: object = None
    ) -> Float[Tensor, "k l h"]:
        """Return the states of chunks between edges, with a cache, of some of the rows."""
        rows = torch.arange(len(self.x)) if rows is None else rows
        cache = cache or self.vlm.new_cache(len(rows), LENGTH)
        states = []
        for start, stop in pairwise(edges):
            x = self.x[rows, start:stop]
            mask = self.mask[rows, :, start:stop, :stop]
            index, coordinates = self.index[rows, start:stop], self._coordinates(x)
            states.append(self.vlm(x, index, mask, cache, coordinates))
        return torch.cat(states, dim=1)


@torch.no_grad()
def states_see_only_the_past(case: Case[VLMStream]) -> Deviation:
    """The state of a position depends on later positions, or not on those before it."""
    rows = Sequences(case.build(), padded=False)
    changed = rows.x.clone()
    changed[:, PROMPT] += rows.x.std()
    before, after = rows.run(rows.x), rows.run(changed)
    seen = (after - before)[:, PROMPT:].abs().amax(dim=(0, 2))
    require(bool((seen > 0).all()), "a state does not depend on a position before it")
    deviation = within(after[:, :PROMPT], before[:, :PROMPT], rows.tolerance, "earlier states")
    plain = rows.vlm(rows.x, rows.index)
    return worst_of(deviation, within(plain, before, rows.tolerance, "states without a mask"))


@torch.no_grad()
def cached_states_equal_whole_ones(case: Case[VLMStream]) -> Deviation:
    """Rows in chunks with a cache, padded on the left, have other states than each by itself."""
    rows = Sequences(case.build())
    cached = rows.chunks(0, PROMPT, *range(PROMPT + 1, LENGTH + 1))
    alone = [
        rows.vlm(rows.x[i : i + 1, pad:], rows.index[i : i + 1, pad:])[0]
        for i, pad in enumerate(PADDING)
    ]
    whole = rows.run(rows.x)
    return worst_of(
        within(cached[rows.valid], torch.cat(alone), rows.tolerance, "states with a cache"),
        within(whole[rows.valid], torch.cat(alone), rows.tolerance, "states of padded rows"),
    )


@torch.no_grad()
def caches_rewind_and_select(case: Case[VLMStream]) -> Deviation:
    """Positions that were taken back stay in a cache, or rows selected from it go on as others."""
    rows = Sequences(case.build())
    expected = rows.run(rows.x)
    cache = rows.vlm.new_cache(len(rows.x), LENGTH)
    require(cache.length == 0, f"a new cache holds {cache.length} positions")
    rows.chunks(0, PROMPT, cache=cache)
    chosen = torch.tensor([2, 0, 2, 5])
    selected = cache.select(chosen)
    rows.x = rows.x + 1  # provisional: of an estimate that is wrong
    rows.chunks(PROMPT, LENGTH, cache=cache)
    rows.x = rows.x - 1
    cache.rewind(LENGTH - PROMPT)
    require(cache.length == PROMPT, f"a cache rewound to {PROMPT} holds {cache.length} positions")
    own = rows.chunks(PROMPT, LENGTH, cache=cache)
    others = rows.chunks(PROMPT, LENGTH, rows=chosen, cache=selected)
    return worst_of(
        within(own, expected[:, PROMPT:], rows.tolerance, "states behind what was taken back"),
        within(others, expected[chosen, PROMPT:], rows.tolerance, "states of selected rows"),
    )


def it_is_frozen(case: Case[VLMStream]) -> Deviation:
    """A weight asks for a gradient, ``train()`` is obeyed, or gradients do not pass through."""
    vlm = case.build()
    asking = [name for name, p in vlm.named_parameters() if p.requires_grad]
    require(not asking, f"these weights ask for gradients: {', '.join(asking[:3])}")
    vlm.train()
    training = [name or "itself" for name, module in vlm.named_modules() if module.training]
    require(not training, f"in training mode after train(): {', '.join(training[:3])}")
    rows = Sequences(vlm)
    x = rows.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rows.run(x)[:, -1].sum(), x)
    reached = (gradient.abs().amax(dim=2) > 0) | ~rows.valid
    require(bool(gradient.isfinite().all() and reached.all()), "no gradient to earlier positions")
    return unmeasured("frozen")


@torch.no_grad()
def other_streams_join_behind_layers(case: Case[VLMStream]) -> Deviation:
    """``after_layer`` is not called behind each layer in order, or what it returns is not used."""
    rows = Sequences(case.build(), padded=False)
    vlm = rows.vlm
    require(len(vlm.decoder_layers()) == vlm.num_layers, "num_layers is not that of the layers")
    visited: list[int] = []
    last: list[Tensor] = []

    def leave(layer: int, states: Tensor) -> Tensor:
        visited.append(layer)
        last[:] = [states]
        return states

    def add(layer: int, states: Tensor) -> Tensor:
        return states + (layer == 0)

    expected = rows.run(rows.x)
    same = vlm(rows.x, rows.index, after_layer=leave)
    require(visited == list(range(vlm.num_layers)), f"after_layer was called behind {visited}")
    changed = vlm(rows.x, rows.index, after_layer=add)
    require(not torch.allclose(changed, expected), "what after_layer returns is not used")
    normed = vlm.final_norm(last[0])
    return worst_of(
        within(same, expected, rows.tolerance, "states with nothing added"),
        within(normed.to(same), same, rows.tolerance, "final norm of the last residual stream"),
    )


def sizes_are_what_they_say(case: Case[VLMStream]) -> Deviation:
    """Embeddings, states, logits or image features are not of the sizes that it states."""
    vlm = case.build()
    tokens = vlm.some_tokens()[:6].view(2, -1)
    embeddings = vlm.embed(tokens)
    shape, expected = tuple(embeddings.shape), (*tokens.shape, vlm.hidden_size)
    require(shape == expected, f"embeddings have shape {shape} instead of {expected}")
    index = torch.arange(tokens.shape[1]).expand(tokens.shape)
    states = vlm(embeddings, index)
    require(states.shape == embeddings.shape, f"states have shape {tuple(states.shape)}")
    shape = tuple(vlm.logits(states).shape)
    wide = shape[:-1] == tokens.shape and shape[-1] >= vlm.vocab_size
    require(wide, f"logits have shape {shape}, with a vocabulary of {vlm.vocab_size}")
    for grid in ((2, 3), (4, 4)):
        offsets, length = vlm.image_index(grid)
        n = math.prod(grid)
        require(len(offsets) == n and offsets[0] == 0, f"image_index{grid} gives {offsets}")
        require(max(offsets) < length, f"image_index{grid} gives {max(offsets)} of {length}")
    images = normal(2, 3, 16, 16, key="images").tanh()
    if not vlm.has_tower:
        return unmeasured("sizes")
    features, own_grid = vlm.encode_images(images)
    shape, expected = tuple(features.shape), (2, math.prod(own_grid), vlm.hidden_size)
    require(shape == expected, f"image features have shape {shape} instead of {expected}")
    return unmeasured("sizes")


def calls_change_nothing(case: Case[VLMStream]) -> Deviation:
    """A call writes into its input, touches the random states, or keeps something."""
    rows = Sequences(case.build())
    argument = rows.x.clone()
    with torch.no_grad(), untouched("running the stream"):
        first = rows.run(argument)
    with torch.no_grad():
        rows.vlm(3 * rows.x[:2, :5], rows.index[:2, :5] + 40)
        again = rows.run(rows.x)
    one, other = rows.vlm.identity, case.build(seed=0).identity
    require(bool(one) and one == other, f"identities of one configuration: {one}, {other}")
    return worst_of(
        within(argument, rows.x, 0.0, "embeddings afterwards"),
        within(again, first, 0.0, "states once more"),
    )
