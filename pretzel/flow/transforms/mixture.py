"""The cumulative distribution of a mixture of logistics as a transform."""

import math

import torch
import torch.nn.functional as F

from pretzel.errors import UserError
from pretzel.flow.precision import at_least_float32
from pretzel.flow.transforms.base import Params, Transform, Values, unit_softplus
from pretzel.typing import Float, Tensor

Components = tuple[Float[Tensor, "*b k d"], Float[Tensor, "*b k d"], Float[Tensor, "*b k d"]]


class MixtureCDF(Transform):
    """z = logit F(x), F the CDF of a mixture of K logistics (Flow++, arXiv 1902.00275).

    F(x) = sum_k w_k sigmoid((x - mu_k) / s_k), so that z = log F - log(1 - F), each of the two a
    log-sum-exp of log-sigmoids: the logit of a summed CDF is infinite beyond |z| = 37 in float64.
    With the density f = F', log dz/dx = log f - log F - log(1 - F), in log space too.

    Raw parameters: [logits of w (K d) | mu (K d) | softplus^-1 of s (K d)].

    Not affine: conditionals are not Gaussian. The inverse is a bisection; it is differentiable
    once (implicitly), in z and in the parameters. A wide gap between narrow components is a
    plateau of z, on which floating point cannot tell one x from the next.

    Args:
        num_components: Logistics K of each channel.
        min_scale: Lower bound of every s_k; the slope of z is at most its inverse.

    Raises:
        UserError: If ``num_components`` is not positive or ``min_scale`` not in (0, 1).
    """

    def __init__(self, num_components: int, min_scale: float = 1e-4) -> None:
        if num_components < 1:
            raise UserError(f"num_components must be 1 or more, got {num_components}")
        if not 0 < min_scale < 1:
            raise UserError(f"min_scale must be in (0, 1), got {min_scale}")
        self.num_components = num_components
        self.min_scale = min_scale
        self.params_per_channel = 3 * num_components

    def forward(self, x: Values, params: Params) -> tuple[Values, Values]:
        """Return the logit of the CDF and the logarithm of its slope."""
        components = self._components(params)
        log_w, mu, s = components
        log_below, log_above = _log_cdf(x, components)
        y = (x.unsqueeze(-2) - mu) / s
        # The density of a standard logistic is sigmoid(y) sigmoid(-y).
        log_density = torch.logsumexp(log_w + F.logsigmoid(y) + F.logsigmoid(-y) - s.log(), dim=-2)
        z, logdet = log_below - log_above, log_density - log_below - log_above
        dtype = torch.promote_types(x.dtype, params.dtype)
        return z.to(dtype), logdet.to(dtype)

    def inverse(self, z: Values, params: Params) -> Values:
        """Return x by bisection on z, to the precision of the numbers.

        F lies between the smallest and the largest of the components' own CDFs, hence z(x) between
        the smallest and the largest (x - mu_k) / s_k, and x between the smallest and the largest
        mu_k + s_k z. The bracket grows with z by itself and never has to be searched for.
        """
        with torch.no_grad():
            components = self._components(params)
            _, mu, s = components
            target = z.to(torch.promote_types(z.dtype, s.dtype))
            ends = mu + s * target.unsqueeze(-2)
            low, high = ends.amin(dim=-2), ends.amax(dim=-2)  # both NaN where z is
            # Mantissa bits, and 8 more for a bracket that is wide for the x in it. A fixed count
            # needs no value from the device, and also ends where numbers are not finite.
            for _ in range(8 - round(math.log2(torch.finfo(target.dtype).eps))):
                middle = 0.5 * low + 0.5 * high
                log_below, log_above = _log_cdf(middle, components)
                is_low = log_below - log_above < target
                low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
            x = (0.5 * low + 0.5 * high).to(torch.promote_types(z.dtype, params.dtype))
        if torch.is_grad_enabled() and (z.requires_grad or params.requires_grad):
            # Implicit differentiation: dx = (dz - dz(x; params) at fixed x) / z'(x). The bisection
            # gives the value; the term added to it is 0 and carries the gradient only.
            reached, logdet = self.forward(x, params)
            largest = torch.finfo(x.dtype).max
            residual = (z - reached) - (z - reached).detach()
            x = x + residual * torch.exp(-logdet.detach()).clamp(max=largest)
        return x

    def _components(self, params: Params) -> Components:
        """Return log w, mu and s of every component, in float32 or better."""
        raw = params.to(at_least_float32(params))
        channels = raw.shape[-1] // self.params_per_channel
        raw = raw.reshape(*raw.shape[:-1], 3, self.num_components, channels)
        logits, mu, scale = raw.unbind(-3)
        # At zero all components are equal and would get equal gradients: they would stay equal
        # for ever. Each has its own gain on its raw numbers, between 1/2 and 2, so that the same
        # gradient moves each by another step.
        k = torch.arange(self.num_components, dtype=raw.dtype, device=raw.device)
        gains = torch.exp2((2 * k + 1) / self.num_components - 1).unsqueeze(-1)
        log_w = F.log_softmax(gains * logits, dim=-2)
        return log_w, gains * mu, unit_softplus(gains * scale, self.min_scale)


def _log_cdf(x: Values, components: Components) -> tuple[Values, Values]:
    """Return log F(x) and log(1 - F(x))."""
    log_w, mu, s = components
    y = (x.unsqueeze(-2) - mu) / s
    log_below = torch.logsumexp(log_w + F.logsigmoid(y), dim=-2)
    return log_below, torch.logsumexp(log_w + F.logsigmoid(-y), dim=-2)
