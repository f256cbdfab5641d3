import math
from decimal import Decimal, localcontext

import pytest
import torch
from torch import nn

from pretzel.flow import (
    AffineExp,
    AffineSoftplus,
    MixtureCDF,
    SoftClip,
    Spline,
    VolumePreserving,
)
from pretzel.flow.transforms import SOFTPLUS_ONE

TRANSFORMS = [
    AffineExp(),
    AffineSoftplus(),
    VolumePreserving(),
    VolumePreserving(learn_variance=False),
    MixtureCDF(num_components=3),
    Spline(),
    SoftClip(MixtureCDF(num_components=2)),
]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_softplus_scale_is_one_at_zero_and_bounded_below():
    transform = AffineSoftplus(min_scale=0.01)
    params = torch.tensor([[0.0, -80.0, 2.0, 0.5, 0.5, 0.5]], dtype=torch.float64)
    mu, sigma = transform.location_and_scale(params)
    third = 0.01 + 0.99 * math.log1p(math.exp(2.0) * (math.e - 1))
    torch.testing.assert_close(sigma, torch.tensor([[1.0, 0.01, third]], dtype=torch.float64))
    assert mu.tolist() == [[0.5, 0.5, 0.5]]


def test_softplus_keeps_the_log_determinant_finite_where_sigma_underflows():
    params = torch.tensor([[-200.0, 0.0]])
    z, logdet = AffineSoftplus().forward(torch.tensor([[1e-4]]), params)
    assert z.item() == pytest.approx(1.0, rel=1e-4)
    assert logdet.item() == pytest.approx(-math.log(1e-4), rel=1e-4)


def test_exp():
    x, params = torch.tensor([[3.0]]), torch.tensor([[math.log(2.0), 1.0]])
    z, logdet = AffineExp().forward(x, params)
    assert z.item() == pytest.approx(1.0)
    assert logdet.item() == pytest.approx(-math.log(2.0))


@pytest.mark.parametrize("min_scale", [-0.1, 1.0])
def test_min_scale_is_checked(min_scale):
    with pytest.raises(ValueError, match=f"min_scale must be in .*got {min_scale}"):
        AffineSoftplus(min_scale=min_scale)


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: MixtureCDF(num_components=0), "num_components must be 1 or more, got 0"),
        (lambda: MixtureCDF(num_components=2, min_scale=0.0), r"min_scale must be in \(0, 1\)"),
        (lambda: Spline(num_bins=1), "num_bins must be 2 or more, got 1"),
        (lambda: Spline(bound=0.0), "bound must be positive and finite, got 0.0"),
        (lambda: Spline(bound=math.nan), "bound must be positive and finite, got nan"),
        (lambda: Spline(num_bins=4, min_bin=0.25), r"min_bin must be in .*0.25\), got 0.25"),
        (lambda: Spline(min_bin=0.0), "min_bin must be in .*got 0.0"),
        (lambda: Spline(min_slope=1.0), "min_slope must be in .*got 1.0"),
        (lambda: SoftClip(AffineExp(), bound=-1.0), "bound must be positive and finite, got -1.0"),
        (lambda: SoftClip(AffineExp(), bound=math.inf), "bound must be positive and finite"),
    ],
)
def test_arguments_out_of_range_are_refused(build, rule):
    with pytest.raises(ValueError, match=rule):
        build()


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_the_inverse_has_the_gradients_of_the_inverse_function(transform):
    z = normal(2, 3).requires_grad_()
    params = normal(2, 3 * transform.params_per_channel, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(transform.inverse, (z, params), atol=1e-6)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_a_batch_without_images_is_a_batch(transform):
    x, params = torch.zeros(0, 4, 3), torch.zeros(0, 4, 3 * transform.params_per_channel)
    z, logdet = transform.forward(x, params)
    assert z.shape == logdet.shape == transform.inverse(x, params).shape == x.shape


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_mixed_precision_is_accepted(transform):
    x, params = torch.zeros(2, 3), torch.zeros(2, 3 * transform.params_per_channel).bfloat16()
    z, logdet = transform.forward(x, params)  # as under autocast
    assert z.dtype == transform.inverse(x, params).dtype == torch.float32
    both, _ = transform.forward(x.bfloat16(), params)
    assert both.dtype == torch.bfloat16
    assert logdet.isfinite().all()


@pytest.mark.parametrize(
    ("transform", "free", "conditional", "affine"),
    [
        (AffineExp(), 0, 2, True),
        (VolumePreserving(), 1, 1, True),
        (VolumePreserving(learn_variance=False), 0, 1, True),
        (MixtureCDF(num_components=4), 0, 12, False),
        (Spline(num_bins=5), 0, 14, False),
        (SoftClip(VolumePreserving()), 1, 1, True),
        (SoftClip(Spline(num_bins=5)), 0, 14, False),
    ],
)
def test_raw_parameters_of_a_channel(transform, free, conditional, affine):
    assert transform.free_per_channel == free
    assert transform.conditional_per_channel == conditional
    assert transform.is_affine is affine


def test_the_refusal_of_a_location_names_the_transform():
    with pytest.raises(ValueError, match=r"must be affine .*got MixtureCDF"):
        SoftClip(MixtureCDF(num_components=2)).location_and_scale(torch.zeros(1, 6))


def test_volume_preserving_logdet_is_minus_the_free_parameters_whatever_the_data():
    a, mu, x = normal(4, 2), normal(3, 4, 2, seed=1), normal(3, 4, 2, seed=2)
    params = torch.cat([a.expand(3, -1, -1), mu], dim=-1)
    z, logdet = VolumePreserving().forward(x, params)
    torch.testing.assert_close(z, (x - mu) / a.exp())
    assert logdet.equal(-a.expand(3, -1, -1))
    z, logdet = VolumePreserving(learn_variance=False).forward(x, mu)
    assert z.equal(x - mu)
    assert not logdet.any()


def test_a_learned_variance_becomes_that_of_the_data():
    # The maximum-likelihood prior variance of TarFlow's volume-preserving variant.
    x, a = 3.0 * normal(500, 2), torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([a], max_iter=50)

    def loss():
        optimizer.zero_grad()
        params = torch.cat([a, torch.zeros_like(a)], dim=-1).expand(500, -1)
        z, logdet = VolumePreserving().forward(x, params)
        value = (0.5 * z.square() - logdet).mean()
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(a.exp()[0], x.square().mean(0).sqrt(), rtol=1e-4, atol=0)


def exact_mixture(x, weights, locations, scales):
    """Return z and log dz/dx of a mixture of logistics in 120 decimal digits."""
    with localcontext() as context:
        context.prec = 120
        below = above = density = Decimal(0)
        for w, mu, s in zip(weights, locations, scales, strict=True):
            e = (-(Decimal(x) - Decimal(mu)) / Decimal(s)).exp()
            below += Decimal(w) / (1 + e)
            above += Decimal(w) * e / (1 + e)
            density += Decimal(w) * e / (Decimal(s) * (1 + e) ** 2)
        return float(below.ln() - above.ln()), float((density / below / above).ln())


def gains(num_components):
    return [2 ** ((2 * k + 1) / num_components - 1) for k in range(num_components)]


def softplus(value):
    return math.log1p(math.exp(value))


@pytest.mark.parametrize("x", [-90.0, -60.0, -7.0, -0.5, 0.0, 1.0, 9.0, 75.0, 110.0])
def test_mixture_against_exact_numbers_also_in_the_tails(x):
    raw = normal(3, 3, seed=4)  # logits, locations, scales of three components
    scaled = raw * torch.tensor(gains(3), dtype=torch.float64)
    weights = [float(w) for w in scaled[0].softmax(0)]
    total = sum(Decimal(w) for w in weights)  # of rounded weights, not quite 1
    scales = [1e-4 + (1 - 1e-4) * softplus(float(s) + SOFTPLUS_ONE) for s in scaled[2]]
    expected = exact_mixture(x, [Decimal(w) / total for w in weights], scaled[1].tolist(), scales)
    z, logdet = MixtureCDF(3).forward(torch.tensor([[x]], dtype=torch.float64), raw.flatten()[None])
    assert (z.item(), logdet.item()) == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_one_component_is_affine():
    x, params = normal(4, 2), normal(4, 6, seed=1)
    z, logdet = MixtureCDF(1).forward(x, params)
    mu, sigma = AffineSoftplus().location_and_scale(params[:, 2:].roll(2, dims=-1))
    torch.testing.assert_close(z, (x - mu) / sigma)
    torch.testing.assert_close(logdet, -sigma.log())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_mixture_inverse_reaches_far_tails(dtype, tolerance):
    transform = MixtureCDF(num_components=4)
    z = torch.linspace(-40, 40, 401, dtype=dtype)[:, None]
    params = normal(401, 12, seed=2).to(dtype)
    x = transform.inverse(z, params)
    again, _ = transform.forward(x, params)
    torch.testing.assert_close(again, z, rtol=0, atol=tolerance)


def test_mixture_inverse_is_exact_beside_a_plateau():
    # Two narrow components ten apart: z hardly moves in between, and jumps at each of them.
    narrow = math.log(math.expm1((0.05 - 1e-4) / (1 - 1e-4))) - SOFTPLUS_ONE
    g = gains(2)
    raw = torch.tensor([[0.0, 0.0, -5 / g[0], 5 / g[1], narrow / g[0], narrow / g[1]]])
    z = torch.tensor([[-8.0], [-1.0], [1.0], [8.0]], dtype=torch.float64)
    x = MixtureCDF(2).inverse(z, raw.double().expand(4, -1))
    again, _ = MixtureCDF(2).forward(x, raw.double().expand(4, -1))
    torch.testing.assert_close(again, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(x.sign(), z.sign())
    assert bool(((x.abs() - 5).abs() < 0.5).all())


def test_mixture_inverse_ends_on_numbers_that_are_not_finite():
    z = torch.tensor([[math.nan], [math.inf], [-math.inf], [1.0]])
    params = torch.zeros(4, 6)
    x = MixtureCDF(2).inverse(z, params)
    assert x[0].isnan()
    assert x[1:3].flatten().tolist() == [math.inf, -math.inf]
    assert MixtureCDF(2).inverse(z[3:], torch.full((1, 6), math.nan)).isnan()


def test_identical_components_part_under_gradient_descent():
    # Data with two modes: a mixture that starts with all its components at one place finds them.
    x = torch.cat([-2 + 0.3 * normal(200, 1), 2 + 0.3 * normal(200, 1, seed=1)])
    transform = MixtureCDF(num_components=2)
    params = nn.Parameter(torch.zeros(1, 6, dtype=torch.float64))
    optimizer = torch.optim.Adam([params], lr=0.05)

    def step():
        optimizer.zero_grad()
        z, logdet = transform.forward(x, params.expand(len(x), -1))
        loss = (0.5 * z.square() - logdet).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    losses = [step() for _ in range(300)]
    low, high = sorted((params[0, 2:4] * torch.tensor(gains(2))).tolist())
    assert (low, high) == pytest.approx((-2.0, 2.0), abs=0.3)
    assert losses[-1] < losses[0] - 0.5


def test_spline_is_the_identity_outside_and_meets_it_smoothly():
    transform = Spline(num_bins=5, bound=2.0)
    params = normal(1, 14).expand(6, -1)
    x = torch.tensor([[-9.0], [-2.0], [2.0], [7.0], [2 - 1e-9], [1e-9 - 2]], dtype=torch.float64)
    z, logdet = transform.forward(x, params)
    torch.testing.assert_close(z, x)
    torch.testing.assert_close(logdet, torch.zeros_like(x), rtol=0, atol=1e-6)
    assert not logdet[:4].any()


def test_spline_is_monotone_with_the_slope_of_autograd():
    transform = Spline(num_bins=6, bound=3.0)
    params = normal(1, 17).expand(2001, -1)
    x = torch.linspace(-4, 4, 2001, dtype=torch.float64)[:, None].requires_grad_()
    z, logdet = transform.forward(x, params)
    (slope,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(logdet, slope.log(), rtol=0, atol=1e-9)
    assert bool((z.diff(dim=0) > 0).all())
    # No step at a knot, neither in z nor in the slope: z is continuously differentiable.
    middle = 0.5 * (slope[1:] + slope[:-1]) * x.diff(dim=0)
    assert float((z.diff(dim=0) - middle).abs().max().detach()) < 2e-3


def test_spline_inverse_where_slopes_differ_by_orders_of_magnitude():
    transform = Spline()
    x = torch.linspace(-4.5, 4.5, 5001)[:, None]
    params = 10 * normal(5001, 23).float()
    z, _ = transform.forward(x, params)
    again, _ = transform.forward(transform.inverse(z, params), params)
    torch.testing.assert_close(again, z, rtol=0, atol=2e-3)  # slopes reach 10^3


def test_spline_gradients_stay_finite_outside_and_at_knots():
    x = torch.tensor([[-1e6], [-4.0], [0.0], [1.0], [4.0], [1e6]], requires_grad=True)
    params = torch.zeros(6, 23, requires_grad=True)
    z, logdet = Spline().forward(x, params)
    back = Spline().inverse(z, params)
    gradients = torch.autograd.grad(z.sum() + logdet.sum() + back.square().sum(), (x, params))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_soft_clip_bounds_what_is_conditional_and_leaves_what_is_free():
    params = torch.tensor([[50.0, -50.0, 100.0, -100.0]])  # a, a (free) | mu, mu
    mu, s = SoftClip(VolumePreserving(), bound=2.0).location_and_scale(params)
    assert mu.tolist() == [[2.0, -2.0]]
    assert s.equal(params[:, :2].exp())
    mu, sigma = SoftClip(AffineExp(), bound=2.0).location_and_scale(params)
    assert mu.tolist() == [[2.0, -2.0]]
    torch.testing.assert_close(sigma.log(), torch.tensor([[2.0, -2.0]]))


def test_soft_clip_is_nothing_near_zero():
    x, params = normal(5, 2), 1e-3 * normal(5, 4, seed=1)
    z, logdet = SoftClip(AffineSoftplus()).forward(x, params)
    expected = AffineSoftplus().forward(x, 4 * torch.tanh(params / 4))
    plain = AffineSoftplus().forward(x, params)
    assert z.equal(expected[0])
    assert logdet.equal(expected[1])
    torch.testing.assert_close(z, plain[0], rtol=0, atol=1e-8)
