"""Soft bounds of raw parameters, for any transform."""

import math

import torch

from pretzel.errors import UserError
from pretzel.flow.transforms.base import Params, Transform, Values


class SoftClip(Transform):
    """Raw parameters p become B tanh(p / B) before another transform (STARFlow, arXiv 2506.06276).

    Near 0 nothing changes, and no raw parameter leaves (-B, B). Free parameters are not clipped: no
    outlier of the conditioner reaches them.

    Args:
        transform: The transform that takes the clipped parameters.
        bound: B.

    Raises:
        UserError: If ``bound`` is not positive and finite.
    """

    def __init__(self, transform: Transform, bound: float = 4.0) -> None:
        if not 0 < bound < math.inf:
            raise UserError(f"bound must be positive and finite, got {bound}")
        self.transform = transform
        self.bound = bound
        self.params_per_channel = transform.params_per_channel
        self.free_per_channel = transform.free_per_channel
        self.is_affine = transform.is_affine

    def forward(self, x: Values, params: Params) -> tuple[Values, Values]:
        """Apply the wrapped transform."""
        return self.transform.forward(x, self._clip(params))

    def inverse(self, z: Values, params: Params) -> Values:
        """Invert the wrapped transform."""
        return self.transform.inverse(z, self._clip(params))

    def location_and_scale(self, params: Params) -> tuple[Values, Values]:
        """Return mu and sigma of the wrapped transform, if it is affine."""
        return self.transform.location_and_scale(self._clip(params))

    def _clip(self, params: Params) -> Params:
        channels = params.shape[-1] // self.params_per_channel
        num_free = self.free_per_channel * channels
        free, conditional = params[..., :num_free], params[..., num_free:]
        clipped = self.bound * torch.tanh(conditional / self.bound)
        return torch.cat([free, clipped], dim=-1) if num_free else clipped
