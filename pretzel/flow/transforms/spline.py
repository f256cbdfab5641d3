"""Monotone rational-quadratic splines."""

import math
from typing import NamedTuple

import torch

from pretzel.errors import UserError
from pretzel.flow.precision import at_least_float32
from pretzel.flow.transforms.base import Params, Transform, Values, unit_softplus
from pretzel.typing import Bool, Float, Tensor

Knots = tuple[Float[Tensor, "*b k d"], Float[Tensor, "*b k d"], Float[Tensor, "*b k d"]]


class Bin(NamedTuple):
    """The bin that each point is in: its left end, its size, and the slopes at both ends."""

    x: Values
    z: Values
    width: Values
    height: Values
    left: Values
    right: Values


class Spline(Transform):
    """A monotone rational-quadratic spline on [-B, B], the identity outside (arXiv 1906.04032).

    Each channel has K bins whose widths and heights are softmaxes and whose inner knots have
    softplus slopes; the slope at both ends is 1, so that z is continuously differentiable. Within
    a bin, with t = (x - x_k) / w and s = h / w (Eq. 4):
    z = z_k + h (s t^2 + d_k t (1 - t)) / (s + (d_k+1 + d_k - 2 s) t (1 - t)).

    Raw parameters: [widths (K d) | heights (K d) | slopes of the inner knots ((K - 1) d)].

    Args:
        num_bins: Bins K.
        bound: Half-width B of the interval, in units of the data.
        min_bin: Smallest width and height of a bin, as a share of the interval.
        min_slope: Smallest slope at a knot.

    Raises:
        UserError: If there are fewer than two bins, ``bound`` is not positive and finite,
            ``min_bin`` not in (0, 1 / num_bins) or ``min_slope`` not in (0, 1).
    """

    def __init__(
        self, num_bins: int = 8, bound: float = 4.0, min_bin: float = 1e-3, min_slope: float = 1e-3
    ) -> None:
        if num_bins < 2:
            raise UserError(f"num_bins must be 2 or more, got {num_bins}")
        if not 0 < bound < math.inf:
            raise UserError(f"bound must be positive and finite, got {bound}")
        if not 0 < min_bin < 1 / num_bins:
            raise UserError(
                f"min_bin must be in (0, 1 / num_bins) = (0, {1 / num_bins:.3g}), got {min_bin}"
            )
        if not 0 < min_slope < 1:
            raise UserError(f"min_slope must be in (0, 1), got {min_slope}")
        self.num_bins = num_bins
        self.bound = bound
        self.min_bin = min_bin
        self.min_slope = min_slope
        self.params_per_channel = 3 * num_bins - 1

    def forward(self, x: Values, params: Params) -> tuple[Values, Values]:
        """Return the spline at x and the logarithm of its slope (Eq. 5)."""
        dtype = torch.promote_types(x.dtype, params.dtype)
        inside, point = self._inside(x, params)
        knots = self._knots(params)
        piece = _bin(point, knots, knots[0])
        t = (point - piece.x) / piece.width
        rest, s = 1 - t, piece.height / piece.width
        below = s + (piece.right + piece.left - 2 * s) * t * rest
        z = piece.z + piece.height * (s * t.square() + piece.left * t * rest) / below
        slope = piece.right * t.square() + 2 * s * t * rest + piece.left * rest.square()
        logdet = 2 * s.log() + slope.log() - 2 * below.log()
        z, logdet = z.to(dtype), logdet.to(dtype)
        return torch.where(inside, z, x.to(dtype)), torch.where(inside, logdet, 0.0)

    def inverse(self, z: Values, params: Params) -> Values:
        """Return the root of the bin's quadratic (Sec. 3.1), without cancellation."""
        dtype = torch.promote_types(z.dtype, params.dtype)
        inside, point = self._inside(z, params)
        knots = self._knots(params)
        piece = _bin(point, knots, knots[1])
        s = piece.height / piece.width
        up = point - piece.z
        excess = up * (piece.right + piece.left - 2 * s)
        a = piece.height * (s - piece.left) + excess
        b = piece.height * piece.left - excess
        c = -s * up
        root = (b.square() - 4 * a * c).clamp(min=0).sqrt()  # below 0 by rounding only
        # Two forms of one root: each adds numbers of the same sign. Where b < 0, a > 0.
        above, below = torch.where(b < 0, root - b, 2 * c), torch.where(b < 0, 2 * a, -b - root)
        # Where the bin is flat, rounding could leave it for a neighbour that is steep.
        x = piece.x + piece.width * (above / below).clamp(0, 1)
        return torch.where(inside, x.to(dtype), z.to(dtype))

    def _inside(self, x: Values, params: Params) -> tuple[Bool[Tensor, "*b d"], Values]:
        """Return which x are inside the interval, and x with 0 outside, in float32 or better."""
        dtype = torch.promote_types(torch.promote_types(x.dtype, params.dtype), torch.float32)
        inside = x.abs() < self.bound  # NaN counts as outside, where it stays NaN
        # The spline at a point outside must be finite, too: its gradient is 0 times its slope.
        return inside, torch.where(inside, x.to(dtype), 0.0)

    def _knots(self, params: Params) -> Knots:
        """Return x, z and the slope at the K + 1 knots, in float32 or better."""
        raw = params.to(at_least_float32(params))
        channels = raw.shape[-1] // self.params_per_channel
        raw = raw.reshape(*raw.shape[:-1], self.params_per_channel, channels)
        k = self.num_bins
        widths, heights, inner = raw[..., :k, :], raw[..., k : 2 * k, :], raw[..., 2 * k :, :]
        ones = torch.ones_like(inner[..., :1, :])
        slopes = torch.cat([ones, unit_softplus(inner, self.min_slope), ones], dim=-2)
        return self._cumulate(widths), self._cumulate(heights), slopes

    def _cumulate(self, raw: Float[Tensor, "*b k d"]) -> Float[Tensor, "*b knots d"]:
        """Return the knots from -B to B between bins of the given logits."""
        shares = self.min_bin + (1 - self.num_bins * self.min_bin) * raw.softmax(dim=-2)
        inner = self.bound * (2 * shares[..., :-1, :].cumsum(dim=-2) - 1)
        end = torch.full_like(inner[..., :1, :], self.bound)
        return torch.cat([-end, inner, end], dim=-2)


def _bin(point: Values, knots: Knots, axis: Float[Tensor, "*b k d"]) -> Bin:
    """Return the bin of each point on an axis, the knots' x or z."""
    # Its number is that of the inner knots that are not above the point.
    index = (point.unsqueeze(-2) >= axis[..., 1:-1, :]).sum(dim=-2, keepdim=True)

    def ends(knots: Tensor) -> tuple[Tensor, Tensor]:
        return knots.gather(-2, index).squeeze(-2), knots.gather(-2, index + 1).squeeze(-2)

    (x, right_x), (z, right_z), (left, right) = map(ends, knots)
    return Bin(x=x, z=z, width=right_x - x, height=right_z - z, left=left, right=right)
