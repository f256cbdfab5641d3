"""The laws of elementwise transforms."""

import torch

from pretzel.flow.transforms import Transform
from pretzel.testing.deviation import Deviation, LawBroken, require, unmeasured, within, worst_of
from pretzel.testing.law_case import FP32, FP64, Case, normal
from pretzel.typing import Float, Tensor

CHANNELS = 5


def built(
    case: Case[Transform], dtype: torch.dtype = torch.float64, spread: float = 1.0
) -> tuple[Transform, Float[Tensor, "b n d"], Float[Tensor, "b n p"]]:
    """Return the transform, with positions and raw parameters for it in float64."""
    transform = case.build(dtype=dtype)
    params = spread * normal(3, 4, CHANNELS * transform.params_per_channel, key="params")
    return transform, normal(3, 4, CHANNELS), params


def raw_parameters_are_counted(case: Case[Transform]) -> Deviation:
    """The numbers of raw and of free parameters do not fit together."""
    transform = case.build()
    total, free = transform.params_per_channel, transform.free_per_channel
    require(total >= 1, f"params_per_channel must be positive, got {total}")
    require(0 <= free <= total, f"free_per_channel must be in 0..{total}, got {free}")
    require(
        transform.conditional_per_channel == total - free,
        f"conditional_per_channel must be {total - free}, got {transform.conditional_per_channel}",
    )
    return unmeasured("raw parameters counted")


def inverse_undoes_forward(case: Case[Transform]) -> Deviation:
    """The inverse does not undo the forward map, or the other way round."""
    transform, x, params = built(case)
    z, _ = transform.forward(x, params)
    back = within(transform.inverse(z, params), x, FP64, "inverse(forward(x)) = x")
    again, _ = transform.forward(transform.inverse(x, params), params)
    return worst_of(back, within(again, x, FP64, "forward(inverse(z)) = z"))


def tails_invert(case: Case[Transform]) -> Deviation:
    """Far from the data, at x of size 50, the inverse does not undo the forward map."""
    transform, x, params = built(case)
    x = 50 * x.sign() + x
    z, logdet = transform.forward(x, params)
    require(bool(logdet.isfinite().all()), "logdet is not finite at x of size 50")
    return within(transform.inverse(z, params), x, FP64, "inverse(forward(x)) = x at size 50")


def nan_stays_nan(case: Case[Transform]) -> Deviation:
    """NaN in a channel gives a finite number, or spoils other channels."""
    transform, x, params = built(case)
    spoilt = x.clone()
    spoilt[:, 1, 2] = torch.nan
    for name, clean, result in (
        ("z", transform.forward(x, params)[0], transform.forward(spoilt, params)[0]),
        ("x", transform.inverse(x, params), transform.inverse(spoilt, params)),
    ):
        require(bool(result[:, 1, 2].isnan().all()), f"{name} must be NaN where its input is")
        result[:, 1, 2] = clean[:, 1, 2]
        deviation = within(result, clean, 0.0, f"{name} of the other channels")
    return deviation


def logdet_is_that_of_the_derivative(case: Case[Transform]) -> Deviation:
    """The reported log-determinant is not log dz/dx, or the map is not increasing."""
    transform, x, params = built(case)
    x.requires_grad_()
    z, logdet = transform.forward(x, params)
    (slope,) = torch.autograd.grad(z.sum(), x)
    require(bool((slope > 0).all()), f"dz/dx must be positive, got {float(slope.min()):.3g}")
    return within(logdet, slope.log(), FP64, "logdet = log dz/dx")


def channels_are_independent(case: Case[Transform]) -> Deviation:
    """A channel's result depends on x of another channel or position."""
    transform, x, params = built(case)
    changed = x.clone()
    changed[:, 1, 2] += 1.0
    z, _ = transform.forward(x, params)
    other, _ = transform.forward(changed, params)
    other[:, 1, 2] = z[:, 1, 2]
    return within(other, z, 0.0, "channels that did not change")


def zero_parameters_are_the_identity(case: Case[Transform]) -> Deviation:
    """All-zero parameters are not the identity, so that a flow does not start as one."""
    if case.perturbed:
        return unmeasured("at initialisation only")
    transform, x, params = built(case)
    z, logdet = transform.forward(x, torch.zeros_like(params))
    same = within(z, x, FP64, "z of zero parameters = x")
    return worst_of(same, within(logdet, torch.zeros_like(logdet), FP64, "logdet = 0"))


def inputs_are_not_modified(case: Case[Transform]) -> Deviation:
    """The transform writes into the tensors it is given."""
    transform, x, params = built(case)
    arguments = x.clone(), params.clone()
    transform.forward(*arguments)
    transform.inverse(*arguments)
    first = within(arguments[0], x, 0.0, "x afterwards")
    return worst_of(first, within(arguments[1], params, 0.0, "parameters afterwards"))


def extremes_stay_finite(case: Case[Transform]) -> Deviation:
    """Raw parameters of size 10 give values or gradients that are not finite in float32."""
    transform, x, params = built(case, torch.float32, spread=10.0)
    x = x.float().requires_grad_()
    params = params.float().clamp(-10, 10).requires_grad_()
    z, logdet = transform.forward(x, params)
    gradients = torch.autograd.grad((0.5 * z.square() - logdet).sum(), (x, params))
    with torch.no_grad():
        back = transform.inverse(x, params)
    named = {"z": z, "logdet": logdet, "x": back}
    named |= dict(zip(("gradient of x", "gradient of params"), gradients, strict=True))
    for name, value in named.items():
        require(bool(value.isfinite().all()), f"{name} is not finite at parameters of size 10")
    return unmeasured("finite at parameters of size 10")


def float32_is_close(case: Case[Transform]) -> Deviation:
    """In float32 the inverse or the log-determinant is off by more than 1e-4."""
    transform, x, params = built(case, torch.float32)
    z, logdet = transform.forward(x.float(), params.float())
    _, expected = case.build().forward(x, params)
    back = within(transform.inverse(z, params.float()).double(), x, FP32, "inverse in float32")
    return worst_of(back, within(logdet.double(), expected, FP32, "logdet in float32"))


def affine_is_standardisation(case: Case[Transform]) -> Deviation:
    """An affine transform is not z = (x - mu) / sigma with its own mu and sigma > 0."""
    transform, x, params = built(case)
    if not transform.is_affine:
        return unmeasured("not affine")
    mu, sigma = transform.location_and_scale(params)
    require(bool((sigma > 0).all()), f"sigma must be positive, got {float(sigma.min()):.3g}")
    z, _ = transform.forward(x, params)
    forth = within(z, (x - mu) / sigma, FP64, "z = (x - mu) / sigma")
    return worst_of(
        forth, within(transform.inverse(x, params), x * sigma + mu, FP64, "x = z sigma + mu")
    )


def only_affine_has_a_location_and_scale(case: Case[Transform]) -> Deviation:
    """A transform that is not affine gives a location and scale instead of a ValueError."""
    transform, _, params = built(case)
    if not transform.is_affine:
        try:
            transform.location_and_scale(params)
        except ValueError:
            pass
        else:
            raise LawBroken("location_and_scale must raise a ValueError where is_affine is False")
    return unmeasured("location and scale of affine transforms")
