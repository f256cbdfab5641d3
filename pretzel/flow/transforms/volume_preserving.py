"""The volume-preserving transform, of which only the location depends on the data."""

import torch

from pretzel.flow.transforms.affine import AffineTransform
from pretzel.flow.transforms.base import Params, Values


class VolumePreserving(AffineTransform):
    """z = (x - mu(x_<i)) / s, where s depends on no data (TarFlow's variant, arXiv 2412.06329).

    The map x -> x - mu preserves volume, and its output has the learned prior N(0, s^2), with
    s = exp(a) for a free parameter a of each position and channel. Dividing by s here keeps the
    prior of the model the standard normal; the likelihood is the same. In the published variant
    the last block alone has a learned variance: the others take ``learn_variance=False``.

    Raw parameters: [a (d, free) | mu (d)], or [mu (d)] with s = 1.

    Args:
        learn_variance: Whether s is learned; otherwise the log-determinant is 0.
    """

    def __init__(self, learn_variance: bool = True) -> None:
        self.learn_variance = learn_variance
        self.free_per_channel = int(learn_variance)
        self.params_per_channel = 1 + self.free_per_channel

    def location_and_scale(self, params: Params) -> tuple[Values, Values]:
        """Return mu and s."""
        a, mu = self._split(params)
        return mu, a.exp()

    def forward(self, x: Values, params: Params) -> tuple[Values, Values]:
        """Standardise x; the log-determinant is -a, independent of the data."""
        a, mu = self._split(params)
        return (x - mu) * torch.exp(-a), -a

    def _split(self, params: Params) -> tuple[Values, Values]:
        if not self.learn_variance:
            return torch.zeros_like(params), params
        a, mu = params.chunk(2, dim=-1)
        return a, mu
