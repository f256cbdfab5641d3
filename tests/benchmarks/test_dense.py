"""The flows that ours is compared to in 64 dimensions: of equal size, and used as they should."""

import pytest
import torch

from benchmarks import dense


def test_equal_parameters():
    budget = dense.count(dense.ours(64, 3))
    for build in (dense.zuko_maf, dense.normflows_maf):
        other = dense.fitted(lambda hidden, build=build: build(hidden, 3), budget)
        assert abs(dense.count(other) / budget - 1) < 0.01


@pytest.mark.parametrize("package", ["zuko", "normflows"])
def test_their_samples_are_where_their_densities_say(package):
    # log p(x) = log N(z) + log|det dz/dx|, where x is what the sampler makes of z
    z = torch.randn(1, dense.DIMENSIONS, dtype=torch.float64)
    if package == "zuko":
        flow = dense.zuko_maf(8, 2).double()
        sample, density = dense.zuko_samples, dense.zuko_density
        back = lambda x: flow().transform(x)  # noqa: E731
    else:
        flow = dense.normflows_maf(8, 2).double()
        sample, density = dense.normflows_samples, dense.normflows_density
        back = flow.inverse
    x = sample(flow, z).detach()
    torch.testing.assert_close(back(x), z)
    jacobian = torch.autograd.functional.jacobian(back, x)[0, :, 0]
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = normal.log_prob(z).sum(dim=1) + jacobian.slogdet().logabsdet
    torch.testing.assert_close(density(flow, x), expected)
