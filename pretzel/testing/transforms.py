"""The laws of elementwise transforms."""

import torch

from pretzel.flow.transforms import AffineTransform, Transform
from pretzel.testing.case import FP32, FP64, Case, normal
from pretzel.testing.deviation import Deviation, require, within, worst_of
from pretzel.typing import Float, Tensor

CHANNELS = 5


def sample(
    transform: Transform, spread: float = 1.0
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n p"]]:
    """Return positions and raw parameters, float64."""
    params = spread * normal(3, 4, CHANNELS * transform.params_per_channel, key="params")
    return normal(3, 4, CHANNELS), params


def inverse_undoes_forward(case: Case[Transform]) -> Deviation:
    """The inverse does not undo the forward map, or the other way round."""
    transform = case.build()
    x, params = sample(transform)
    z, _ = transform.forward(x, params)
    back = within(transform.inverse(z, params), x, FP64, "inverse(forward(x)) = x")
    again, _ = transform.forward(transform.inverse(x, params), params)
    return worst_of([back, within(again, x, FP64, "forward(inverse(z)) = z")])


def logdet_is_that_of_the_derivative(case: Case[Transform]) -> Deviation:
    """The reported log-determinant is not log dz/dx, or the map is not increasing."""
    transform = case.build()
    x, params = sample(transform)
    x.requires_grad_()
    z, logdet = transform.forward(x, params)
    (slope,) = torch.autograd.grad(z.sum(), x)
    require(bool((slope > 0).all()), f"dz/dx must be positive, got {float(slope.min()):.3g}")
    return within(logdet, slope.log(), FP64, "logdet = log dz/dx")


def channels_are_independent(case: Case[Transform]) -> Deviation:
    """A channel's result depends on x of another channel or position."""
    transform = case.build()
    x, params = sample(transform)
    changed = x.clone()
    changed[:, 1, 2] += 1.0
    z, _ = transform.forward(x, params)
    other, _ = transform.forward(changed, params)
    other[:, 1, 2] = z[:, 1, 2]
    return within(other, z, 0.0, "channels that did not change")


def zero_parameters_are_the_identity(case: Case[Transform]) -> Deviation:
    """All-zero parameters are not the identity, so that a flow does not start as one."""
    if case.perturbed:
        return Deviation(what="at initialisation only", error=0.0, tolerance=0.0)
    transform = case.build()
    x, params = sample(transform)
    z, logdet = transform.forward(x, torch.zeros_like(params))
    same = within(z, x, FP64, "z of zero parameters = x")
    return worst_of([same, within(logdet, torch.zeros_like(logdet), FP64, "logdet = 0")])


def inputs_are_not_modified(case: Case[Transform]) -> Deviation:
    """The transform writes into the tensors it is given."""
    transform = case.build()
    x, params = sample(transform)
    given = x.clone(), params.clone()
    transform.forward(*given)
    transform.inverse(*given)
    first = within(given[0], x, 0.0, "x afterwards")
    return worst_of([first, within(given[1], params, 0.0, "parameters afterwards")])


def extremes_stay_finite(case: Case[Transform]) -> Deviation:
    """Raw parameters of size 10 give values that are not finite in float32."""
    transform = case.build(dtype=torch.float32)
    x, params = sample(transform, spread=10.0)
    outputs = transform.forward(x.float(), params.float().clamp(-10, 10))
    back = transform.inverse(x.float(), params.float().clamp(-10, 10))
    for name, value in (("z", outputs[0]), ("logdet", outputs[1]), ("x", back)):
        require(bool(value.isfinite().all()), f"{name} is not finite at parameters of size 10")
    return Deviation(what="finite at parameters of size 10", error=0.0, tolerance=0.0)


def float32_is_close(case: Case[Transform]) -> Deviation:
    """In float32 the inverse or the log-determinant is off by more than 1e-4."""
    transform, exact = case.build(dtype=torch.float32), case.build()
    x, params = sample(transform)
    z, logdet = transform.forward(x.float(), params.float())
    _, expected = exact.forward(x, params)
    back = within(transform.inverse(z, params.float()).double(), x, FP32, "inverse in float32")
    return worst_of([back, within(logdet.double(), expected, FP32, "logdet in float32")])


def affine_is_standardisation(case: Case[Transform]) -> Deviation:
    """An affine transform is not z = (x - mu) / sigma with its own mu and sigma > 0."""
    transform = case.build()
    if not isinstance(transform, AffineTransform):
        return Deviation(what="not affine", error=0.0, tolerance=0.0)
    x, params = sample(transform)
    mu, sigma = transform.location_and_scale(params)
    require(bool((sigma > 0).all()), f"sigma must be positive, got {float(sigma.min()):.3g}")
    z, _ = transform.forward(x, params)
    forth = within(z, (x - mu) / sigma, FP64, "z = (x - mu) / sigma")
    return worst_of(
        [forth, within(transform.inverse(x, params), x * sigma + mu, FP64, "x = z sigma + mu")]
    )
