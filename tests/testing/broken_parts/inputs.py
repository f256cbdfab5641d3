"""Contexts, positions and starts that are wrong in one place, in an otherwise plain block."""

import math
from functools import partial

import torch
from torch import nn

from broken_parts import Broken
from pretzel.flow import (
    AddedContext,
    AFBlock,
    AffineSoftplus,
    AxialPositions,
    ClassVector,
    Flip,
    LearnedPositions,
    PooledText,
    PrefixContext,
    StartToken,
)
from pretzel.flow.positions.rotary import rotation_of
from pretzel.testing.tiny_model import transformer


def block(**options):
    return partial(
        AFBlock, 3, (2, 3), 1, Flip(),
        transform=AffineSoftplus(), conditioner=transformer(width=16, head_dim=8), **options,
    )  # fmt: skip


def of_classes(kind=ClassVector):
    return block(context=partial(AddedContext, vector=partial(kind, num_classes=3)))


def of_text(kind=PooledText):
    return block(context=partial(AddedContext, vector=partial(kind, channels=5)))


def behind_text(kind=PrefixContext, positions=AxialPositions):
    return block(context=partial(kind, channels=5), positions=positions)


class NullIsTheFirstClass(ClassVector):
    def forward(self, context):
        return super().forward(context.clamp(min=0))


class OneClassForAllRows(ClassVector):
    def forward(self, context):
        return super().forward(context[:1].expand(len(context)))


class TwoClassesInOne(ClassVector):
    def forward(self, context):
        return super().forward(context.clamp(max=1))


class ReadsTheLastToken(PooledText):
    def forward(self, context):
        return self.linear(context[:, -1])


class ReadsFourTokens(PrefixContext):
    """Cuts a text that is longer than those of its author."""

    def forward(self, context):
        return super().forward(context[:, :4])


class DropsThePrefixInEval(PrefixContext):
    def forward(self, context):
        return super().forward(context if self.training else 0 * context)


class CentresInPlace(PooledText):
    """Centres the text that other blocks are going to read."""

    def forward(self, context):
        return super().forward(context.sub_(context.mean()))


class DetachedText(PooledText):
    def forward(self, context):
        return super().forward(context.detach())


class RoundedFrequencies(AxialPositions):
    """Keeps its frequencies in a buffer that is cast with the weights."""

    def __init__(self, grid, width, rotary_dim, text_axis):
        super().__init__(grid, width, rotary_dim, text_axis)
        self.register_buffer("table", self.rotary.frequencies.clone(), persistent=False)

    def rotation(self, places, dtype):
        return rotation_of((places.to(self.table.dtype).unsqueeze(-1) * self.table).sum(-2), dtype)


class StridesOfASquare(LearnedPositions):
    def __init__(self, grid, width, rotary_dim, text_axis):
        super().__init__(grid, width, rotary_dim, text_axis)
        self.strides = torch.tensor([math.prod(grid[:1]), 1])


class ColumnsOnly(AxialPositions):
    """Forgets the rows: places of one column have one encoding."""

    def rotation(self, places, dtype):
        return super().rotation(places * torch.tensor([0, 1]), dtype)

    def embed(self, coordinates):
        return super().embed(coordinates * torch.tensor([0, 1]))


class CountsFromTheFirst(AxialPositions):
    """Rotates by the distance to the first place that is asked for, whatever stands before."""

    def rotation(self, places, dtype):
        return super().rotation(places - places[..., :1, :], dtype)

    def embed(self, coordinates):
        return super().embed(coordinates - coordinates.amin(dim=0))


class HalfTheAngle(AxialPositions):
    """Rotates one channel of a pair by half the angle of the other."""

    def rotation(self, places, dtype):
        cosine, sine = super().rotation(places, dtype)
        half = super().rotation(0.5 * places, dtype)
        first = torch.arange(cosine.shape[-1]) < cosine.shape[-1] // 2
        return torch.where(first, cosine, half[0]), torch.where(first, sine, half[1])


class ScalesByTheLength(AxialPositions):
    """Spreads a text over a fixed range, and says that it streams all the same."""

    def text_places(self, length, num_axes, device=None):
        return super().text_places(length, num_axes, device) * 8.0 / length


class FreshStart(StartToken):
    """Draws the token anew, as an augmentation that nobody switches off."""

    def forward(self, embed):
        return self.token + 0.01 * torch.randn(self.token.shape, dtype=self.token.dtype)


class StartTwice(StartToken):
    """Adds a second token, which starts at zero behind a gate that does."""

    def __init__(self, channels, width):
        super().__init__(channels, width)
        self.gate = nn.Parameter(torch.zeros(()))
        self.more = nn.Parameter(torch.zeros(width))

    def forward(self, embed):
        return self.token + self.gate * self.more


BROKEN = [
    *(
        Broken(of_classes(kind), of_classes(), law)
        for kind, law in [
            (NullIsTheFirstClass, "contexts.every_context_has_an_effect"),
            (TwoClassesInOne, "contexts.every_context_has_an_effect"),
            (OneClassForAllRows, "blocks.rows_are_independent"),
        ]
    ),
    Broken(of_text(ReadsTheLastToken), of_text(), "contexts.every_token_is_read"),
    Broken(of_text(CentresInPlace), of_text(), "blocks.inputs_are_not_modified"),
    Broken(of_text(DetachedText), of_text(), "contexts.every_token_is_read"),
    Broken(behind_text(ReadsFourTokens), behind_text(), "contexts.every_token_is_read"),
    Broken(
        behind_text(DropsThePrefixInEval), behind_text(), "contexts.every_context_has_an_effect"
    ),
    *(
        Broken(block(positions=kind), block(positions=AxialPositions), f"positions.{law}")
        for kind, law in [
            (RoundedFrequencies, "angles_are_not_rounded_with_the_weights"),
            (ColumnsOnly, "places_are_told_apart"),
            (CountsFromTheFirst, "a_place_is_encoded_by_itself"),
            (HalfTheAngle, "rotations_keep_lengths"),
        ]
    ),
    Broken(
        block(positions=StridesOfASquare),
        block(positions=LearnedPositions),
        "positions.places_are_told_apart",
    ),
    Broken(behind_text(positions=ScalesByTheLength), behind_text(), "positions.texts_stream"),
    *(
        Broken(block(start=kind), block(start=StartToken), law)
        for kind, law in [
            (FreshStart, "state.calls_leave_no_trace"),
            (StartTwice, "gradients.every_parameter_starts_to_move"),
        ]
    ),
]
