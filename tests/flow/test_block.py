from functools import partial

import pytest
import torch

from pretzel.flow import (
    AdaLN,
    AddedContext,
    AFBlock,
    AffineExp,
    AffineSoftplus,
    ClassVector,
    Flip,
    FlowStack,
    PrefixContext,
    Raster,
    VolumePreserving,
)
from pretzel.flow.positions import AxialRotary, rotate
from pretzel.flow.transformer import CausalTransformer
from pretzel.sampling.guidance import GaussianMixing
from pretzel.sampling.samplers import GaussSeidelJacobi, Jacobi, Sequential
from pretzel.sampling.stack import invert_stack
from pretzel.testing import perturb
from pretzel.testing.gradients import jacobian
from pretzel.testing.law_case import normal

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


def test_far_positions_stay_apart_under_autocast():
    rotary = AxialRotary(head_dim=8, num_axes=1)
    places = torch.tensor([[300], [301]])
    with torch.autocast("cpu", torch.bfloat16):
        cosine, _ = rotary(places, torch.float32)
    exact, _ = rotary(places, torch.float32)
    torch.testing.assert_close(cosine, exact)
    assert (cosine[0, 0] - cosine[0, 1]).abs().max() > 0.1


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


def conditioned(context, **options):
    made = AFBlock(
        2, (2, 3), 2, Flip(), transform=AffineSoftplus(), context=context,
        conditioner=partial(TRANSFORMER, **options),
    )  # fmt: skip
    perturb(made.double())
    return made


def test_gradient_checkpointing_changes_no_gradient():
    plain = conditioned(None)
    recomputing = conditioned(None, gradient_checkpointing=True)
    recomputing.load_state_dict(plain.state_dict())
    x = normal(2, 6, 2)
    gradients = []
    for made in (plain, recomputing):
        loss = made(x).z.square().sum() + made(x).logdet.sum()
        gradients.append(torch.autograd.grad(loss, list(made.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)


def test_shared_key_heads_equal_repeated_ones():
    shared = CausalTransformer(1, width=16, head_dim=4, num_kv_heads=2).double()
    whole = CausalTransformer(1, width=16, head_dim=4).double()
    perturb(shared)
    state = shared.state_dict()
    name = "layers.0.attention.qkv"
    for kind in ("weight", "bias"):
        query, key, value = state[f"{name}.{kind}"].split([16, 8, 8])
        repeated = [
            part.unflatten(0, (2, 4)).repeat_interleave(2, dim=0).flatten(0, 1)
            for part in (key, value)
        ]
        state[f"{name}.{kind}"] = torch.cat([query, *repeated])
    whole.load_state_dict(state)
    h = normal(2, 5, 16)
    torch.testing.assert_close(whole(h), shared(h), rtol=0, atol=1e-12)


def test_a_context_is_needed_where_one_is_read_and_only_there():
    reader = partial(AddedContext, vector=partial(ClassVector, num_classes=3))
    x = normal(2, 6, 2)
    with pytest.raises(ValueError, match="AFBlock reads a context, got none"):
        conditioned(reader)(x)
    with pytest.raises(ValueError, match="AFBlock reads no context"):
        conditioned(None)(x, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"labels below num_classes=3 .* got 3"):
        conditioned(reader)(x, torch.tensor([0, 3]))


def test_no_class_is_the_mean_of_all():
    reader = partial(AddedContext, vector=partial(ClassVector, num_classes=3))
    made = conditioned(reader)
    x = normal(1, 6, 2)
    null = made(x, torch.tensor([-1])).z
    made.context.vector.vectors.data[1] = made.context.vector.vectors.data.mean(0)
    made.context.vector.vectors.data[0] = made.context.vector.vectors.data[1]
    made.context.vector.vectors.data[2] = made.context.vector.vectors.data[1]
    torch.testing.assert_close(made(x, torch.tensor([1])).z, null)


def test_adaln_starts_as_a_block_without_context():
    reader = partial(AdaLN, vector=partial(ClassVector, num_classes=3))
    made = AFBlock(
        2, (2, 3), 1, Flip(), transform=AffineSoftplus(), conditioner=TRANSFORMER, context=reader
    ).double()
    made.head.weight.data.normal_()
    x = normal(2, 6, 2)
    assert torch.equal(made(x, torch.tensor([0, 1])).z, made(x, torch.tensor([2, -1])).z)
    made.context.map.weight.data.normal_()
    assert not torch.allclose(made(x, torch.tensor([0, 1])).z, made(x, torch.tensor([2, -1])).z)


def test_free_parameters_are_the_prior_variance():
    """Volume-preserving with a learned variance: the density of N(mu, s^2) at each position."""
    made = AFBlock(
        2, (3,), 1, Flip(), transform=VolumePreserving(), conditioner=TRANSFORMER
    ).double()
    made.free.data = normal(3, 2, key="free")
    x = normal(4, 3, 2)
    flowed = made(x)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(flowed.z).sum((1, 2)) + flowed.logdet
    # the free parameters follow the scan, which runs backwards
    scale = made.free.exp().flip(0)
    expected = torch.distributions.Normal(torch.zeros_like(scale), scale).log_prob(x).sum((1, 2))
    torch.testing.assert_close(density, expected)


def test_a_scale_that_underflows_is_refused_by_name():
    made = AFBlock(2, (3,), 1, Raster(), transform=AffineExp(), conditioner=TRANSFORMER)
    made.head.bias.data[:2] = -1000.0
    with torch.no_grad(), pytest.raises(ValueError, match="AFBlock: z must be finite, got"):
        made(torch.ones(1, 3, 2))
    # a diverging training step is the guard's business
    assert not made(torch.ones(1, 3, 2)).z.isfinite().all()


@pytest.mark.gpu
def test_blocks_and_samplers_agree_on_a_gpu():
    made = conditioned(partial(PrefixContext, channels=5)).float()
    stack = FlowStack([block(Raster()).float(), made])
    x, context = normal(3, 6, 2).float(), normal(3, 4, 5, key="context").float()
    expected = stack(x, context)
    stack.cuda()
    actual = stack(x.cuda(), context.cuda())
    torch.testing.assert_close(actual.z.cpu(), expected.z, rtol=0, atol=1e-4)
    for sampler in (Sequential(), Jacobi(tolerance=0.0), GaussSeidelJacobi(num_samples=2)):
        with torch.inference_mode():
            options = {"context": context.cuda(), "null_context": torch.zeros(3, 4, 5).cuda()}
            back = invert_stack(stack, actual.z.detach(), sampler, **options)
            invert_stack(stack, actual.z.detach(), sampler, guidance=GaussianMixing(2.0), **options)
        torch.testing.assert_close(back.x.cpu(), x, rtol=0, atol=1e-3)
