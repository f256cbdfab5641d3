"""Deliberately broken transforms: each is caught by its law and no other."""

import pytest
import torch

from pretzel.flow import AffineExp, AffineSoftplus, MixtureCDF
from pretzel.testing import LawBroken, try_laws


class MiscountsParameters(AffineSoftplus):
    @property
    def conditional_per_channel(self):
        return self.params_per_channel + 1


class BendsTheTails(AffineSoftplus):
    """Maps beyond 10 as if it were at 10, where no data is."""

    is_affine = False

    def location_and_scale(self, params):
        raise ValueError("not affine")

    def forward(self, x, params):
        mu, sigma = super().location_and_scale(params)
        return ((x - mu) / sigma).clamp(-20, 20), -sigma.log().expand_as(x)

    def inverse(self, z, params):
        mu, sigma = super().location_and_scale(params)
        return z * sigma + mu


class HidesNaN(AffineSoftplus):
    def forward(self, x, params):
        z, logdet = super().forward(x, params)
        return z.nan_to_num(), logdet


class SpreadsNaN(AffineSoftplus):
    def inverse(self, z, params):
        return super().inverse(z, params) + 0 * z.mean(dim=-1, keepdim=True)


class SeesItsNeighbour(AffineSoftplus):
    """Shifts a channel by the parity of the one before, so that its slope is as it says."""

    is_affine = False

    def location_and_scale(self, params):
        raise ValueError("not affine")

    def forward(self, x, params):
        mu, sigma = super().location_and_scale(params)
        shift = mu * self.parity_before(x)
        return (x - mu - shift) / sigma, -sigma.log().expand_as(x)

    def inverse(self, z, params):
        mu, sigma = super().location_and_scale(params)
        x = torch.zeros_like(z)
        for _ in range(z.shape[-1]):
            x = z * sigma + mu + mu * self.parity_before(x)
        return x

    def parity_before(self, x):
        return torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1].floor() % 2], dim=-1)


class ClampsInPlace(AffineSoftplus):
    def location_and_scale(self, params):
        with torch.no_grad():
            params.clamp_(-2, 2)
        return super().location_and_scale(params)


class Overflows(AffineExp):
    """Scales by exp(a |a|): infinite in float32 where a network says 10."""

    is_affine = False

    def location_and_scale(self, params):
        raise ValueError("not affine")

    def forward(self, x, params):
        a, mu = params.chunk(2, dim=-1)
        return (x - mu) * (-a * a.abs()).exp(), -a * a.abs()

    def inverse(self, z, params):
        a, mu = params.chunk(2, dim=-1)
        return z * (a * a.abs()).exp() + mu


class LosesDigits(AffineSoftplus):
    """Subtracts large numbers: exact enough in float64, not in float32."""

    def forward(self, x, params):
        z, logdet = super().forward(x, params)
        return z, (logdet + 1e5) - 1e5


class ScaleOfAMixture(MixtureCDF):
    def location_and_scale(self, params):
        return params[..., :1], params[..., 1:2].exp()


@pytest.mark.parametrize(
    ("part", "laws"),
    [
        (MiscountsParameters, {"raw_parameters_are_counted"}),
        (BendsTheTails, {"extremes_invert"}),
        (HidesNaN, {"nan_stays_nan"}),
        (SpreadsNaN, {"nan_stays_nan"}),
        # NaN is one more thing to see in a neighbour
        (SeesItsNeighbour, {"channels_are_independent", "nan_stays_nan"}),
        # What is changed in place cannot be differentiated either
        (ClampsInPlace, {"inputs_are_not_modified", "gradients_are_those_of_finite_differences"}),
        (Overflows, {"extremes_stay_finite"}),
        (LosesDigits, {"float32_is_close"}),
        (lambda: ScaleOfAMixture(num_components=2), {"only_affine_has_a_location_and_scale"}),
    ],
)
def test_exactly_its_law_catches(part, laws):
    failed = [outcome for outcome in try_laws(part) if not outcome.passed]
    assert {outcome.law.name for outcome in failed} == {f"transforms.{law}" for law in laws}
    assert all(isinstance(outcome.cause, LawBroken) for outcome in failed)
