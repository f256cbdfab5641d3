"""Sums and angles stay in float32 or better where the rest is bfloat16."""

import pytest
import torch

from pretzel.flow import AFBlock, AffineExp, AxialPositions, Flip, FlowStack, StarflowPositions
from pretzel.flow.block import Identity
from pretzel.flow.positions import AxialRotary
from pretzel.sampling.inversion import BlockInversion
from pretzel.sampling.samplers import Jacobi, Sequential
from pretzel.testing import perturb
from pretzel.testing.law_case import normal
from pretzel.testing.tiny_model import transformer


def block(grid=(8, 8)):
    made = AFBlock(
        3, grid, 1, Flip(), transform=AffineExp(), conditioner=transformer(width=16, head_dim=8)
    )
    perturb(made)
    return made


def sum_of_bfloat16(made, x):
    """The log-determinant's terms as they are, added in double precision."""
    return made.elementwise(x)[1].double().sum(dim=(1, 2))


@torch.no_grad()
def test_log_determinants_are_summed_in_float32_under_autocast():
    made, x = block(), normal(2, 64, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        flowed, expected = made(x), sum_of_bfloat16(made, x)
        stacked = FlowStack([made, Identity(3, (8, 8), 0, Flip())])(x)
    for actual in (flowed.logdet, stacked.logdet):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_log_determinants_are_summed_in_float32_with_bfloat16_weights():
    made, x = block().bfloat16(), normal(2, 64, 3).bfloat16()
    expected = sum_of_bfloat16(made, x)
    for actual in (made(x).logdet, FlowStack([made])(x).logdet):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    assert FlowStack([])(x).logdet.dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("sampler", [Sequential(), Jacobi(block_size=3, tolerance=0.0)])
def test_keys_are_stored_as_computed_under_autocast(sampler):
    made, z = block((2, 3)), normal(2, 6, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        inversion = BlockInversion(made, z)
        assert inversion.cache.network.entries.dtype == torch.bfloat16
        sampler.solve(inversion, 0)
        back = made(inversion.x).z
    torch.testing.assert_close(back, z, rtol=0, atol=0.1)


PLACES = torch.tensor([[300, 17], [301, 16]])


def bfloat16_rotary():
    return AxialRotary(head_dim=12, num_axes=2).bfloat16()


def rotary_made_in_bfloat16():
    torch.set_default_dtype(torch.bfloat16)
    try:
        return AxialRotary(head_dim=12, num_axes=2)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "build",
    [
        bfloat16_rotary,
        rotary_made_in_bfloat16,
        lambda: AxialRotary(head_dim=12, num_axes=2).bfloat16().float(),
        lambda: AxialPositions((2, 2), 16, 12, False).bfloat16().rotary,
        lambda: AxialRotary(head_dim=12, num_axes=2).to("meta").to_empty(device="cpu"),
    ],
)
def test_frequencies_are_not_rounded_with_the_weights(build):
    exact = AxialRotary(head_dim=12, num_axes=2)(PLACES, torch.float32)
    made = build()
    assert torch.equal(made(PLACES, torch.float32)[0], exact[0])
    assert not made.state_dict()


def test_starflow_frequencies_stay_double_and_on_the_module():
    made = StarflowPositions((2, 2), 16, 24, True, side=2, of_text_model=True)
    places = torch.cat([made.text_places(3, 3), made.image_places(PLACES, 3)])
    exact = made.rotation(places, torch.float64)
    cast = made.bfloat16()
    assert torch.equal(cast.rotation(places, torch.float64)[0], exact[0])
    assert not made.state_dict()
    assert all(buffer.is_meta for buffer in made.to("meta").buffers())
