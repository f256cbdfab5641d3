"""The laws of positional encodings, by that of the block that reads them."""

import copy

import torch

from pretzel.flow.af_block import AFBlock
from pretzel.flow.positions import Positions
from pretzel.sequence.grid import grid_coordinates
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.law_case import FP64, PERTURBED, Case, tried_in
from pretzel.typing import Float, Tensor

_TEXT = 3


def _code(positions: Positions, places: Tensor, coordinates: Tensor | None) -> Float[Tensor, "n c"]:
    """Return all numbers that stand for each place: its vector, cosines and sines."""
    numbers = [torch.zeros(len(places), 1).double()]
    rotation = positions.rotation(places, torch.float64)
    if rotation is not None:
        numbers += [part.squeeze(-3) for part in rotation]
    vectors = None if coordinates is None else positions.embed(coordinates)
    if vectors is not None:
        numbers.append(vectors)
    return torch.cat(numbers, dim=-1)


def _image(block: AFBlock) -> tuple[Tensor, Tensor]:
    """Return the coordinates of a block's grid, and the places of its image behind a text."""
    has_text = block.context is not None and block.context.has_prefix
    coordinates = grid_coordinates(block.grid)
    return coordinates, block.positions.image_places(coordinates, _TEXT if has_text else None)


@tried_in(PERTURBED)
def places_are_told_apart(case: Case[AFBlock]) -> Deviation:
    """Two places of the image, or two of a text before it, have the same encoding."""
    block = case.build()
    positions, (coordinates, places) = block.positions, _image(block)
    with torch.no_grad():
        codes = [_code(positions, places, coordinates)]
        if block.context is not None and block.context.has_prefix:
            codes.append(_code(positions, positions.text_places(_TEXT, places.shape[-1]), None))
    for code in codes:
        if code.shape[1] == 1:
            continue  # no rotary positions, and no vectors
        distance = (code[:, None] - code).abs().amax(dim=-1) + torch.eye(len(code)).double()
        first, second = divmod(int(distance.argmin()), len(code))
        what = f"places {first} and {second} differ by {float(distance.min()):.2g} only"
        require(float(distance.min()) > 1e-6, what)
    return unmeasured("places are told apart")


@tried_in(PERTURBED)
def a_place_is_encoded_by_itself(case: Case[AFBlock]) -> Deviation:
    """The encoding of a place depends on which others are encoded with it, as behind a cache."""
    block = case.build()
    coordinates, places = _image(block)
    with torch.no_grad():
        together = _code(block.positions, places, coordinates)
        alone = [
            _code(block.positions, places[i : i + 1], coordinates[i : i + 1])
            for i in range(len(places))
        ]
    return within(torch.cat(alone), together, FP64, "encoding of a single place")


@tried_in(PERTURBED)
def rotations_keep_lengths(case: Case[AFBlock]) -> Deviation:
    """Cosines and signed sines are not those of a rotation."""
    block = case.build()
    rotation = block.positions.rotation(_image(block)[1], torch.float64)
    if rotation is None:
        return unmeasured("no rotary positions")
    cosine, sine = rotation
    shape = (1, len(block.order), block.conditioner.rotary_dim)
    require(tuple(cosine.shape[-3:]) == shape, f"cosines have shape {tuple(cosine.shape)}")
    half = cosine.shape[-1] // 2
    return worst_of(
        within(cosine.square() + sine.square(), torch.ones_like(cosine), FP64, "cos^2 + sin^2"),
        within(cosine[..., half:], cosine[..., :half], FP64, "cosines of a pair"),
        within(sine[..., half:], -sine[..., :half], FP64, "signed sines of a pair"),
    )


@tried_in(PERTURBED)
def angles_are_not_rounded_with_the_weights(case: Case[AFBlock]) -> Deviation:
    """With bfloat16 weights the angle of a place far out is rounded, and off by a turn or more."""
    block = case.build()
    exact, (_, image) = block.positions, _image(block)
    places = torch.tensor([0.0, 137.0, 4099.0]).double()[:, None].expand(-1, image.shape[-1])
    rough = copy.deepcopy(exact).bfloat16().rotation(places, torch.float32)
    expected = exact.rotation(places, torch.float64)
    if rough is None or expected is None:
        return unmeasured("no rotary positions")
    pairs = zip(rough, expected, strict=True)
    what = "rotation with bfloat16 weights"
    return worst_of(*(within(a.double(), b, 0.01, what) for a, b in pairs))


@tried_in(PERTURBED)
def texts_stream(case: Case[AFBlock]) -> Deviation:
    """An encoding that is said to stream gives the places of a text by its final length."""
    positions = case.build().positions
    if not positions.streams:
        return unmeasured("does not stream")
    axes = 1 + len(case.build().grid)
    short, long = (positions.text_places(length, axes).double() for length in (_TEXT, 50))
    return within(long[:_TEXT], short, 0.0, "first places of a longer text")
