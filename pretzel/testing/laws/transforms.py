"""The laws of elementwise transforms."""

import math
from collections.abc import Sequence

import torch

from pretzel.flow.transforms import Transform
from pretzel.rng import global_states
from pretzel.testing.deviation import (
    Deviation,
    LawBroken,
    check,
    require,
    unmeasured,
    within,
    worst,
    worst_of,
)
from pretzel.testing.global_state import has_drawn, seeded
from pretzel.testing.gradients import check_finite_differences
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


def extremes(transform: Transform) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n p"]]:
    """Return positions at scales from 0.1 to 30, with raw parameters up to 8 in size, in float64.

    The scales stand along the positions, and the size of the parameters along the rows.
    """
    x = normal(6, 5, CHANNELS, key="wide") * torch.tensor([0.1, 1, 3, 10, 30])[:, None].double()
    params = normal(6, 5, CHANNELS * transform.params_per_channel, key="raw")
    sizes = torch.tensor([0.1, 1, 2, 4, 8, 8]).double()[:, None, None]
    return x, (params * sizes).clamp(-8, 8)


def within_condition(
    back: Float[Tensor, "*b d"],
    x: Float[Tensor, "*b d"],
    z: Float[Tensor, "*b d"],
    logdet: Float[Tensor, "*b d"],
) -> Deviation:
    """Compare the inverse of z with x, where z has enough digits to tell x.

    Rounding of z moves x by as much as z'(x) is small.
    """
    room = 1 + x.abs() + 1e-4 * (1 + z.abs()) * torch.exp(-logdet)
    errors = ((back - x).abs() / room).nan_to_num(nan=math.inf)
    return check(worst(errors, FP64, "inverse at raw parameters up to 8"))


def inverse_undoes_forward(case: Case[Transform]) -> Deviation:
    """The inverse does not undo the forward map, or the other way round."""
    transform, x, params = built(case)
    z, _ = transform.forward(x, params)
    back = within(transform.inverse(z, params), x, FP64, "inverse(forward(x)) = x")
    again, _ = transform.forward(transform.inverse(x, params), params)
    return worst_of(back, within(again, x, FP64, "forward(inverse(z)) = z"))


def extremes_invert(case: Case[Transform]) -> Deviation:
    """Far from the data, or at raw parameters of up to 8 in size, the inverse is another map."""
    transform, x, params = built(case)
    x = 50 * x.sign() + x
    z, logdet = transform.forward(x, params)
    require(bool(logdet.isfinite().all()), "logdet is not finite at x of size 50")
    tails = within(transform.inverse(z, params), x, FP64, "inverse(forward(x)) = x at size 50")
    x, params = extremes(transform)
    z, logdet = transform.forward(x, params)
    return worst_of(tails, within_condition(transform.inverse(z, params), x, z, logdet))


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
    usual = within(logdet, slope.log(), FP64, "logdet = log dz/dx")
    x, params = extremes(transform)
    z, logdet = transform.forward(x.requires_grad_(), params)
    (slope,) = torch.autograd.grad(z.sum(), x)
    steep = slope > 1e-100  # below, the slope itself has lost its digits
    what = "logdet = log dz/dx at raw parameters up to 8"
    return worst_of(usual, within(logdet[steep], slope[steep].log(), 1e-8, what))


def gradients_are_those_of_finite_differences(case: Case[Transform]) -> Deviation:
    """A gradient of z or of the log-determinant is not that of its values: a term is detached."""
    transform, x, params = built(case)
    weights = normal(*x.shape, key="weights")

    def values() -> dict[str, Tensor]:
        z, logdet = transform.forward(x, params)
        return {"z": (weights * z).sum(), "the log-determinant": (weights * logdet).sum()}

    points: dict[str, Sequence[Tensor]] = {
        "x": [x.requires_grad_()], "the raw parameters": [params.requires_grad_()]
    }  # fmt: skip
    return check_finite_differences(values, points)


def positions_are_independent(case: Case[Transform]) -> Deviation:
    """A position by itself, [b, d], is mapped otherwise than among others, [b, n, d]."""
    transform = case.build()
    x, params = extremes(transform)
    together = (*transform.forward(x, params), transform.inverse(x, params))
    deviations = []
    for i in range(x.shape[1]):
        at = x[:2, i], params[:2, i]
        alone = (*transform.forward(*at), transform.inverse(*at))
        for name, one, all_of_them in zip(("z", "logdet", "x"), alone, together, strict=True):
            deviations.append(within(one, all_of_them[:2, i], FP64, f"{name} of one position"))
    return worst_of(*deviations)


def calls_leave_no_trace(case: Case[Transform]) -> Deviation:
    """A result depends on earlier calls, or a call touches a global random state."""
    transform, x, params = built(case)
    results = []
    for seed in (0, 1):
        with seeded("transform", seed):
            before = global_states()
            results.append((*transform.forward(x, params), transform.inverse(x, params)))
            require(not has_drawn(before, global_states()), "the call draws random numbers")
        transform.inverse(*extremes(transform))
    named = zip(("z", "logdet", "x"), *results, strict=True)
    return worst_of(*(within(b, a, 0.0, f"{name} of a second call") for name, a, b in named))


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
    transform = case.build()
    if not transform.is_affine:
        return unmeasured("not affine")
    x, params = extremes(transform)
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
