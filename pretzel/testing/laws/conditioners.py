"""The laws of conditioners: what samplers and the deep stream ask of them, and a block does not."""

from itertools import pairwise
from typing import Any

import torch

from pretzel.flow.af_block import AFBlock
from pretzel.flow.conditioner import Conditioner, LayeredConditioner, Rotation
from pretzel.flow.positions import AxialRotary
from pretzel.sequence.masks import document_mask
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.law_case import FP64, PERTURBED, PERTURBED_EVAL, Case, normal, tried_in
from pretzel.typing import Tensor

LENGTH = 5
PADDING = (0, 1, 3)


def masks_hide_what_stands_before(case: Case[AFBlock]) -> Deviation:
    """Rows padded on the left, or packed behind others, are not as by themselves under a mask."""
    conditioner = case.build().conditioner
    h = normal(len(PADDING), LENGTH, conditioner.width, key="states")
    index = torch.arange(LENGTH) - torch.tensor(PADDING)[:, None]
    is_real = index >= 0
    mask = document_mask(is_real.long())
    assert isinstance(mask, torch.Tensor)
    rotation = None
    if conditioner.rotary_dim:
        rotary = AxialRotary(head_dim=conditioner.rotary_dim, num_axes=1)
        rotation = rotary(index.clamp(min=0)[..., None], h.dtype)
    begin = max(PADDING) + 1
    with torch.no_grad():
        try:
            together = conditioner(h, rotation, mask)
        except ValueError as error:
            require("mask" in str(error), f"a mask is refused without naming it: {error}")
            return unmeasured("refuses a mask")
        cache = conditioner.new_cache(len(h), LENGTH)
        chunks = []
        for start, stop in pairwise([0, *range(begin, LENGTH + 1)]):
            part = _part(rotation, slice(None), slice(start, stop))
            seen = mask[:, :, start:stop, :stop]
            chunks.append(conditioner(h[:, start:stop], part, seen, cache))
        alone = [
            conditioner(h[i : i + 1, pad:], _part(rotation, slice(i, i + 1), slice(pad, None)))[0]
            for i, pad in enumerate(PADDING)
        ]
    expected = torch.cat(alone)
    return worst_of(
        within(together[is_real], expected, FP64, "states of padded rows"),
        within(torch.cat(chunks, 1)[is_real], expected, FP64, "states of padded rows, cached"),
    )


def _states(
    conditioner: Conditioner[Any], rows: int, length: int
) -> tuple[Tensor, Rotation | None]:
    """Return inputs for a conditioner, and the rotation of positions 0, 1, .."""
    h = normal(rows, length, conditioner.width, key="states")
    if not conditioner.rotary_dim:
        return h, None
    rotary = AxialRotary(head_dim=conditioner.rotary_dim, num_axes=1)
    return h, rotary(torch.arange(length).expand(rows, -1)[..., None], h.dtype)


@tried_in(PERTURBED, PERTURBED_EVAL)
def rotations_are_relative(case: Case[AFBlock]) -> Deviation:
    """Rotary positions have no effect, or another one where all are moved by the same distance."""
    conditioner = case.build().conditioner
    if not conditioner.rotary_dim:
        return unmeasured("no rotary positions")
    h = normal(1, LENGTH, conditioner.width, key="states")
    rotary = AxialRotary(head_dim=conditioner.rotary_dim, num_axes=1).double()
    index = torch.arange(LENGTH)[None, :, None]
    with torch.no_grad():
        here, moved, still = (
            conditioner(h, rotary(places, h.dtype)) for places in (index, index + 7, 0 * index)
        )
    effect = float((here - still).abs().max())
    require(effect > 1e-8, f"rotary positions change states by {effect:.2g} only")
    return within(moved, here, FP64, "states seven places on")


def rows_of_a_cache_can_be_selected(case: Case[AFBlock]) -> Deviation:
    """A cache of selected rows is of others, or shares memory with the one it is selected from."""
    conditioner = case.build().conditioner
    h, rotation = _states(conditioner, 3, LENGTH)
    rows = torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        expected = conditioner(h, rotation)
        cache = conditioner.new_cache(3, LENGTH)
        conditioner(h[:, :2], _part(rotation, slice(None), slice(0, 2)), None, cache)
        chosen = cache.select(rows)
        require(chosen.length == 2, f"a selected cache of 2 positions has length {chosen.length}")
        other, behind = normal(4, LENGTH - 2, conditioner.width, key="other"), slice(2, None)
        of_four = None if rotation is None else tuple(r[rows] for r in rotation)
        of_four = _part(of_four, slice(None), behind)
        conditioner(other, of_four, None, chosen)  # which must not reach the first cache
        rest = conditioner(h[:, 2:], _part(rotation, slice(None), behind), None, cache)
        chosen.rewind(LENGTH - 2)
        selected = conditioner(h[rows, 2:], of_four, None, chosen)
    return worst_of(
        within(rest, expected[:, 2:], FP64, "states behind the cache"),
        within(selected, expected[rows, 2:], FP64, "states behind selected rows"),
    )


def layers_can_be_run_in_parts(case: Case[AFBlock]) -> Deviation:
    """Layers run some at a time, with a cache or without, give other states than all at once."""
    conditioner = case.build().conditioner
    if not isinstance(conditioner, LayeredConditioner):
        return unmeasured("does not stop between layers")
    h, rotation = _states(conditioner, 3, LENGTH)
    last, everywhere = conditioner.num_layers, slice(None)
    deviations = []
    with torch.no_grad():
        expected = conditioner(h, rotation)
        for middle in range(last + 1):
            for uses_cache in (False, True):
                cache = conditioner.new_cache(3, LENGTH) if uses_cache else None
                parts = []
                for at in (
                    (slice(0, 2), slice(2, 3), slice(3, None)) if uses_cache else (everywhere,)
                ):
                    turned = _part(rotation, everywhere, at)
                    state = conditioner.run(h[:, at], 0, middle, turned, None, cache)
                    state = conditioner.run(state, middle, last, turned, None, cache)
                    length = at.start or 0
                    committed = length if cache is None else cache.length
                    require(committed == length, "positions are committed before finish")
                    parts.append(conditioner.finish(state, cache))
                what = f"states, stopped after layer {middle}{', cached' * uses_cache}"
                deviations.append(within(torch.cat(parts, 1), expected, FP64, what))
    return worst_of(*deviations)


@tried_in(PERTURBED, PERTURBED_EVAL)
def recording_changes_no_state(case: Case[AFBlock]) -> Deviation:
    """Behind a cache, positions have other states where no gradients are recorded, as in sampling.

    There layers may run by other code, whose caches the usual code reads and the other way round.
    """
    conditioner = case.build().conditioner
    h, rotation = _states(conditioner, 3, LENGTH)
    temperature: Tensor | None = h.new_tensor([1.0, 2.0, 0.5])
    try:
        conditioner.new_cache(3, LENGTH, temperature)
    except ValueError:
        temperature = None

    def states(recorded: str) -> Tensor:
        cache, parts = conditioner.new_cache(3, LENGTH, temperature), []
        for at, grad in zip((0, 2, 3, 4), recorded, strict=True):
            chunk = slice(at, at + 1 if at else 2)
            with torch.set_grad_enabled(grad == "g"):
                part = _part(rotation, slice(None), chunk)
                parts.append(conditioner(h[:, chunk], part, None, cache).detach())
        return torch.cat(parts, 1)

    expected = states("gggg")
    results = [within(states(mixed), expected, FP64, mixed) for mixed in ("....", "g.g.", ".g.g")]
    return worst_of(*results)


@tried_in(PERTURBED, PERTURBED_EVAL)
def modulation_acts_on_its_own_rows(case: Case[AFBlock]) -> Deviation:
    """A shift, scale or gate of a layer does nothing, or acts on other rows; zeros do something."""
    conditioner = case.build().conditioner
    if not isinstance(conditioner, LayeredConditioner):
        return unmeasured("has no layers")
    layers, width = conditioner.num_layers, conditioner.width
    count = 1 + 6 * layers  # row 0 is not modulated, each other by one thing in one layer
    h, rotation = _states(conditioner, 1, LENGTH)
    modulation = h.new_zeros(count, 6 * layers, width)
    modulation[range(1, count), range(6 * layers)] = normal(6 * layers, width, key="modulation")
    modulation = modulation.view(count, layers, 6, width)
    h = h.expand(count, -1, -1)
    rotation = None if rotation is None else tuple(r.expand(count, -1, -1, -1) for r in rotation)
    with torch.no_grad():
        try:
            states = conditioner(h, rotation, None, None, modulation)
        except ValueError as error:
            what = f"a modulation is refused without naming it: {error}"
            require("modulation" in str(error), what)
            return unmeasured("refuses a modulation")
        plain = conditioner(h[:1], _part(rotation, slice(1), slice(None)))
        cache = conditioner.new_cache(count, LENGTH)
        edges = (slice(0, 1), slice(1, 2), slice(2, None))
        cached = [
            conditioner(h[:, at], _part(rotation, slice(None), at), None, cache, modulation)
            for at in edges
        ]
    for row, effect in enumerate((states[1:] - states[:1]).abs().amax(dim=(1, 2)).tolist()):
        what = ("shift", "scale", "gate")[row % 3] + (" of the MLP" if row % 6 > 2 else "")
        require(
            effect > 1e-8, f"the {what} in layer {row // 6} changes states by {effect:.2g} only"
        )
    return worst_of(
        within(states[:1], plain, FP64, "states under a modulation of zeros"),
        within(torch.cat(cached, 1), states, FP64, "modulated states behind a cache"),
    )


def _part(rotation: Rotation | None, rows: slice, positions: slice) -> Rotation | None:
    return None if rotation is None else tuple(r[rows, :, positions] for r in rotation)
