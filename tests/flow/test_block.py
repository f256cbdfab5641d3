from functools import partial

import pytest
import torch

from pretzel.flow import AFBlock, AffineSoftplus, Flip, FlowStack, Raster
from pretzel.flow.positions import AxialRotary, rotate
from pretzel.flow.transformer import CausalTransformer
from pretzel.testing import perturb
from pretzel.testing.case import normal
from pretzel.testing.gradients import jacobian

TRANSFORMER = partial(CausalTransformer, width=16, head_dim=8)


def block(permutation, **options):
    made = AFBlock(
        2, (2, 3), 1, permutation, transform=AffineSoftplus(), conditioner=TRANSFORMER, **options
    )
    perturb(made.double())
    return made


def test_a_stack_composes_maps_and_log_determinants():
    stack = FlowStack([block(Raster()), block(Flip())])
    x = normal(2, 6, 2)
    flowed = stack(x)
    torch.testing.assert_close(stack.inverse(flowed.z), x, rtol=0, atol=1e-10)
    for row in range(2):
        full = jacobian(lambda rows: stack(rows).z, x[row])
        true = torch.linalg.slogdet(full.reshape(12, 12)).logabsdet
        torch.testing.assert_close(flowed.logdet[row], true, rtol=0, atol=1e-10)
        # two scan orders together are not triangular: every position is seen
        assert (full.abs().amax(dim=(1, 3)) > 0).all()


def test_an_empty_stack_is_the_identity():
    x = normal(2, 6, 2)
    flowed = FlowStack([])(x)
    assert torch.equal(flowed.z, x)
    assert flowed.logdet.tolist() == [0, 0]


def test_a_block_starts_as_the_identity():
    made = AFBlock(
        2, (2, 3), 2, Flip(), transform=AffineSoftplus(), conditioner=TRANSFORMER
    ).double()
    x = normal(2, 6, 2)
    torch.testing.assert_close(made(x).z, x, rtol=0, atol=1e-14)


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"AFBlock takes x of shape \[b, 6, 2\].*\(1, 5, 2\)"):
        block(Flip())(normal(1, 5, 2))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="head_dim must divide width=16, got 6"):
        CausalTransformer(width=16, num_layers=1, head_dim=6)


@pytest.mark.parametrize("head_dim", [7, 4])
def test_heads_must_hold_all_axes(head_dim):
    with pytest.raises(ValueError, match=f"at least 6 for 3 position axes, got {head_dim}"):
        AxialRotary(head_dim=head_dim, num_axes=3)


def test_rotary_products_depend_on_differences_along_every_axis():
    rotary = AxialRotary(head_dim=10, num_axes=3)
    positions = torch.tensor([[3, 1, 2], [5, 0, 2], [5, 0, 7]])
    q, k = normal(1, 1, 3, 10, key="q")[:, :, :1].expand(1, 1, 3, 10), normal(1, 1, 1, 10, key="k")
    k = k.expand(1, 1, 3, 10)

    def products(shift):
        rotation = rotary(positions + shift, torch.float64)
        return rotate(q, *rotation)[0, 0] @ rotate(k, *rotation)[0, 0].T

    same = products(torch.tensor([0, 0, 0]))
    torch.testing.assert_close(products(torch.tensor([4, 9, 1])), same)
    # and each axis counts
    assert (same[0, 1] - same[0, 0]).abs() > 1e-3
    assert (same[1, 2] - same[1, 1]).abs() > 1e-3


def test_rotation_keeps_norms():
    rotation = AxialRotary(head_dim=8, num_axes=2)(torch.tensor([[5, 3]]), torch.float64)
    x = normal(1, 2, 1, 8)
    torch.testing.assert_close(rotate(x, *rotation).norm(dim=-1), x.norm(dim=-1))


def test_masked_padding_does_not_reach_valid_positions():
    transformer = CausalTransformer(width=16, num_layers=2, head_dim=8).double()
    perturb(transformer)
    rotary = AxialRotary(head_dim=8, num_axes=1)
    x, positions = normal(1, 5, 16), torch.arange(5)[:, None]
    valid = torch.tensor([[False, False, True, True, True]])
    mask = (torch.ones(5, 5).tril().bool() & valid[:, None] | torch.eye(5).bool())[:, None]
    padded = transformer(x, rotary(positions, x.dtype), mask)[:, 2:]
    alone = transformer(x[:, 2:], rotary(positions[2:], x.dtype))
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-12)
