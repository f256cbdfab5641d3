"""The law of masks, which a conditioner is given in the deep stream but not in a block."""

from itertools import pairwise

import torch

from pretzel.flow.af_block import AFBlock
from pretzel.flow.conditioner import Rotation
from pretzel.flow.positions import AxialRotary
from pretzel.sequence.masks import document_mask
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.law_case import FP64, Case, normal

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


def _part(rotation: Rotation | None, rows: slice, positions: slice) -> Rotation | None:
    return None if rotation is None else tuple(r[rows, :, positions] for r in rotation)  # type: ignore[return-value]
