"""Transforms and scan orders that are wrong in one place."""

import math
from functools import partial

import torch

from broken_parts import Broken
from pretzel.flow import AffineExp, AffineSoftplus, FixedRandom, Flip, Permutation, Raster, SoftClip


class DetachesSigma(AffineSoftplus):
    def forward(self, x, params):
        mu, sigma = self.location_and_scale(params)
        return (x - mu) / sigma, -sigma.detach().log()


class ClampsSigmaOneWay(AffineSoftplus):
    """Bounds sigma on the way to noise, and not on the way back."""

    def forward(self, x, params):
        mu, sigma = self.location_and_scale(params)
        sigma = sigma.clamp(max=4.0)
        return (x - mu) / sigma, -sigma.log().expand_as(x)


class BoundsTheInverse(AffineExp):
    def inverse(self, z, params):
        a, mu = params.chunk(2, dim=-1)
        return z * a.clamp(max=6).exp() + mu


class ClipsNoise(AffineSoftplus):
    """Clips z on the way back to 40 standard deviations, where no noise is; but data may be."""

    def inverse(self, z, params):
        return super().inverse(z.clamp(-40, 40), params)


class ClampsLogdet(AffineExp):
    def forward(self, x, params):
        z, logdet = super().forward(x, params)
        return z, logdet.clamp(max=5)


class NormalisesTheSequence(AffineSoftplus):
    """Divides sigma by its mean over the positions, which one step at a time is sigma itself."""

    def location_and_scale(self, params):
        mu, sigma = super().location_and_scale(params)
        return mu, sigma / sigma.mean(dim=-2, keepdim=True) if sigma.dim() == 3 else sigma


class FitsItself(AffineSoftplus):
    """Standardises from the second call on."""

    last = 1.0

    def forward(self, x, params):
        last, self.last = self.last, 1.5
        z, logdet = super().forward(x, params)
        return z / last, logdet - math.log(last)

    def inverse(self, z, params):
        return super().inverse(z * self.last, params)


class Dithers(AffineSoftplus):
    def forward(self, x, params):
        return super().forward(x + 1e-12 * torch.randn_like(x), params)


class HalvesOddGrids(Permutation):
    """Visits every other position first; of an odd number it forgets the last."""

    def order(self, grid):
        half = math.prod(grid) // 2
        return torch.cat([2 * torch.arange(half), 2 * torch.arange(half) + 1])


class SeedsItsOrder(FixedRandom):
    def order(self, grid):
        torch.manual_seed(self.seed)
        return torch.randperm(math.prod(grid))


class LendsItsOrder(Permutation):
    """Keeps the orders, and hands out what it keeps."""

    def __init__(self):
        self.kept = {}

    def order(self, grid):
        return self.kept.setdefault(grid, torch.arange(math.prod(grid)))


class AlternatesDirections(Permutation):
    """Flips from one call to the next, so that two blocks get different orders."""

    def __init__(self):
        self.flips = False

    def order(self, grid):
        self.flips = not self.flips
        return (Flip() if self.flips else Raster()).order(grid)


BROKEN = [
    *(
        Broken(part, original, f"transforms.{law}")
        for part, original, law in [
            (DetachesSigma, AffineSoftplus, "gradients_are_those_of_finite_differences"),
            (
                partial(SoftClip, DetachesSigma()),
                partial(SoftClip, AffineSoftplus()),
                "gradients_are_those_of_finite_differences",
            ),
            (ClampsSigmaOneWay, AffineSoftplus, "extremes_invert"),
            (BoundsTheInverse, AffineExp, "extremes_invert"),
            (ClipsNoise, AffineSoftplus, "extremes_invert"),
            (ClampsLogdet, AffineExp, "logdet_is_that_of_the_derivative"),
            (NormalisesTheSequence, AffineSoftplus, "positions_are_independent"),
            (FitsItself, AffineSoftplus, "calls_leave_no_trace"),
            (Dithers, AffineSoftplus, "calls_leave_no_trace"),
        ]
    ),
    Broken(HalvesOddGrids, Raster, "permutations.every_position_is_visited_once"),
    Broken(partial(SeedsItsOrder, 0), partial(FixedRandom, 0), "permutations.order_is_fixed"),
    Broken(LendsItsOrder, Raster, "permutations.order_is_fixed"),
    Broken(AlternatesDirections, Flip, "permutations.order_is_fixed"),
]
