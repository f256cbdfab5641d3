"""Bits per dimension, with every constant, against entropies and densities in closed form."""

import math
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from callbacks.likelihood import dequantised_bits_per_dim
from pretzel.flow import AffineSoftplus
from pretzel.flow.block import FlowBlock, Flowed
from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.latent import Pixels
from pretzel.model import Pretzel
from pretzel.rng import stream
from pretzel.sampling.denoisers import NoDenoiser
from pretzel.sampling.guidance import NoGuidance
from pretzel.sampling.samplers import Sequential
from pretzel.sequence.document import DocumentBatch, caption_document
from pretzel.testing import tiny_pretzel
from pretzel.training.module import PretzelModule
from pretzel.training.schedule import Constant

LN2 = math.log(2)
SIZE = 4
DIMS = 3 * SIZE**2
CELL = 1 / 127.5
"""Width of the cell of a level, pixels in [-1, 1]."""
HALF_CELL = CELL / 2


def batch_of(levels: Tensor) -> DocumentBatch:
    """Return 8-bit images [m, 3, h, w], levels in 0..255, as a datamodule gives them."""
    documents = tuple(caption_document("a red circle", key=str(i)) for i in range(len(levels)))
    return DocumentBatch(documents=documents, images=levels.double() / 127.5 - 1)


def random_levels(count: int, size: int = SIZE) -> Tensor:
    generator = stream("levels", count)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator)


def module_of(model: Pretzel) -> PretzelModule:
    module = PretzelModule(
        model, 0.5, partial(torch.optim.SGD, lr=0.1), Constant(), NoGuidance(), NoDenoiser(),
        Sequential(),
    )  # fmt: skip
    return module.double()


@dataclass
class Density:
    """A module whose density on pixels is known: [m, 3, h, w] -> nats of each element, summed."""

    log_density: object
    seed: int = 0
    seen: Tensor | None = None

    def pixel_log_prob(self, batch: DocumentBatch) -> Tensor:
        self.seen = batch.images
        return self.log_density(batch.images).flatten(1).sum(1)


def bits(density, levels: Tensor) -> Tensor:
    return dequantised_bits_per_dim(density, batch_of(levels))


# The constants of a flow


@pytest.mark.parametrize("interleaving", [Stacked, TextPrefix, Unconditional])
def test_an_identity_flow_has_the_standard_normal_density(interleaving):
    module = module_of(tiny_pretzel(interleaving))
    batch = batch_of(random_levels(3))
    with torch.no_grad():
        on_pixels = module.pixel_log_prob(batch)
        found = module.log_prob(batch)
    # patches only reorder pixels, so the density of an image is that of its pixels
    expected = Normal(0.0, 1.0).log_prob(batch.images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(on_pixels, expected, rtol=0, atol=1e-10)
    noise = module.pretzel.sample_noise(["0", "1", "2"], 0, "evaluation")
    noised = module.pretzel.latent.encode(batch.images) + 0.1 * noise
    expected = Normal(0.0, 1.0).log_prob(noised).sum(dim=(1, 2))
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=1e-10)
    by_hand = -0.5 * noised.square().sum(dim=(1, 2)) - DIMS / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(found.log_prob, by_hand, rtol=0, atol=1e-10)
    assert found.dims == DIMS


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_the_noise_floor_is_the_entropy_of_the_noise(noise):
    module = module_of(tiny_pretzel(Unconditional))
    module.pretzel.latent.noise = noise
    with torch.no_grad():
        found = module.log_prob(batch_of(random_levels(2)))
    entropy = Normal(0.0, noise).entropy().item()
    assert found.noise_floor == pytest.approx(entropy, abs=1e-7)
    whole = MultivariateNormal(torch.zeros(5), noise**2 * torch.eye(5)).entropy() / 5
    assert found.noise_floor == pytest.approx(whole.item(), abs=1e-6)


def test_the_true_density_of_noised_data_costs_the_floor_and_what_the_data_cost():
    # data N(0, s^2) with noise sigma: excess = log2(sqrt(s^2 + sigma^2) / sigma) bits, on average
    s, sigma = 0.6, 0.3
    module = module_of(tiny_pretzel(Unconditional))
    module.pretzel.latent.noise = sigma
    set_diagonal(module.pretzel, torch.zeros(12), torch.full((12,), math.hypot(s, sigma)))
    generator = stream("clean")
    images = s * torch.randn(400, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    batch = replace(batch_of(random_levels(400)), images=images)
    with torch.no_grad():
        found = module.log_prob(batch)
    excess = ((-found.log_prob / found.dims - found.noise_floor) / LN2).mean().item()
    expected = math.log2(math.hypot(s, sigma) / sigma)
    assert excess == pytest.approx(expected, abs=0.01)  # 19,200 draws: 0.004 a standard error


# Discrete images


def test_uniform_over_all_cells_costs_eight_bits_whatever_the_image():
    edge = 1 + HALF_CELL
    density = Density(lambda x: torch.full_like(x, -math.log(2 * edge)))
    found = bits(density, random_levels(5))
    torch.testing.assert_close(found, torch.full_like(found, 8.0), rtol=0, atol=1e-12)
    assert density.seen.abs().max() <= edge


def test_uniform_over_the_values_of_the_levels_alone_leaves_the_half_cells_out():
    # [-1, 1] is 255 cells wide, not 256: log2 255 bits inside, impossible in the outer half cells
    def log_density(x):
        return torch.where(x.abs() <= 1, -math.log(2), -math.inf)

    inner = random_levels(5).clamp(1, 254)
    found = bits(Density(log_density), inner)
    expected = torch.full_like(found, math.log2(255))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert bits(Density(log_density), torch.zeros(5, 3, SIZE, SIZE)).eq(math.inf).all()


PROBABILITIES = {0: 1 / 8, 17: 1 / 2, 128: 1 / 4, 255: 1 / 8}


def cells(x: Tensor) -> Tensor:
    """Return the log-density of levels with known probabilities, each spread over its cell."""
    table = torch.full((256,), -math.inf, dtype=torch.float64)
    for level, probability in PROBABILITIES.items():
        table[level] = math.log(probability / CELL)
    return table[((x + 1) * 127.5).round().long()]


def test_the_true_density_of_discrete_data_costs_their_entropy():
    # every level as often as it is probable: the mean is the entropy itself, without sampling error
    flat = torch.cat([torch.full((int(48 * p),), k) for k, p in PROBABILITIES.items()])
    order = torch.randperm(48, generator=stream("order"))
    found = bits(Density(cells), flat[order].view(1, 3, SIZE, SIZE))
    entropy = -sum(p * math.log2(p) for p in PROBABILITIES.values())
    assert entropy == 1.75
    assert found.item() == pytest.approx(entropy, abs=1e-12)
    # and each level costs its own -log2 P
    for level, probability in PROBABILITIES.items():
        one = bits(Density(cells), torch.full((1, 3, SIZE, SIZE), level))
        assert one.item() == pytest.approx(-math.log2(probability), abs=1e-12)


def test_a_density_that_is_not_flat_in_a_cell_costs_more_than_the_cells_probability():
    # Jensen: E_u[-log2 p] + log2(127.5) >= -log2 of the integral over the cell
    normal = Normal(torch.tensor(0.0, dtype=torch.float64), 0.002)
    level = 128
    x = level / 127.5 - 1
    probability = normal.cdf(torch.tensor(x + HALF_CELL)) - normal.cdf(torch.tensor(x - HALF_CELL))
    found = bits(Density(normal.log_prob), torch.full((200, 3, SIZE, SIZE), level)).mean()
    points = x + (torch.linspace(0, 1, 100_001, dtype=torch.float64) - 0.5) * CELL
    bound = (-normal.log_prob(points)).mean() / LN2 + math.log2(127.5)
    assert found.item() == pytest.approx(bound.item(), abs=0.02)  # a mean over 9,600 draws
    assert bound > -probability.log2() + 0.3


def test_images_are_those_levels_however_they_were_scaled_or_rounded():
    levels = random_levels(2)
    batch = batch_of(levels)
    density = Density(cells)
    exact = Density(lambda x: Normal(0.0, 1.0).log_prob(x))
    single = dequantised_bits_per_dim(exact, replace(batch, images=batch.images.float()))
    torch.testing.assert_close(single.double(), bits(exact, levels), rtol=0, atol=1e-5)
    bits(density, levels)
    assert torch.equal(((density.seen + 1) * 127.5).round().long(), levels)


# The same density on other scales


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_bits_do_not_depend_on_the_scale_the_density_is_written_in(low, high):
    # y = low + (x + 1) / 2 (high - low) has cells (high - low) / 255 wide
    span = high - low
    levels = random_levels(3)
    mean, scale = low + 0.4 * span, 0.3 * span
    normal = Normal(torch.tensor(mean, dtype=torch.float64), scale)
    density = Density(
        lambda x: normal.log_prob(low + (x + 1) / 2 * span) + math.log(span / 2)  # dy/dx
    )
    found = bits(density, levels)
    y = low + (density.seen + 1) / 2 * span
    directly = -normal.log_prob(y).flatten(1).mean(1) / LN2 - math.log2(span / 255)
    torch.testing.assert_close(found, directly, rtol=0, atol=1e-10)
    reference = bits(Density(Normal(torch.tensor(-0.2, dtype=torch.float64), 0.6).log_prob), levels)
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-10)


# Flows with parameters set by hand, against Gaussians fitted in closed form


def set_diagonal(model: Pretzel, mean: Tensor, scale: Tensor) -> None:
    """Make the deep stream N(mean, scale^2) at every position, through the bias of its head."""
    transform = model.deep.transform
    assert isinstance(transform, AffineSoftplus)
    least = transform.min_scale
    a = torch.log(torch.expm1((scale.double() - least) / (1 - least))) - math.log(math.e - 1)
    with torch.no_grad():
        model.deep.head.bias.copy_(torch.cat([a, mean.double()]))


def test_a_flow_with_mu_and_sigma_set_by_hand_is_the_diagonal_gaussian():
    module = module_of(tiny_pretzel(Stacked))
    mean = torch.linspace(-0.5, 0.5, 12, dtype=torch.float64)
    scale = torch.linspace(0.2, 0.9, 12, dtype=torch.float64)
    set_diagonal(module.pretzel, mean, scale)
    levels = random_levels(4)
    # the same for every 2 x 2 patch; its channels run colour, row, column
    tiled = [v.view(3, 2, 2).repeat(1, 2, 2) for v in (mean, scale)]
    with torch.no_grad():
        found = bits(module, levels)
    torch.testing.assert_close(
        found, bits(Density(Normal(*tiled).log_prob), levels), rtol=0, atol=1e-9
    )


class Whiten(FlowBlock):
    """z = L^-1 (x - m) over all dimensions of an image: any Gaussian, autoregressive in order."""

    def __init__(self, channels: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.channels, self.grid = channels, grid
        dims = math.prod(grid) * channels
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("factor", torch.eye(dims))

    def forward(self, x: Tensor) -> Flowed:
        centred = x.flatten(1) - self.mean
        z = torch.linalg.solve_triangular(self.factor, centred.T, upper=False).T
        logdet = -self.factor.diagonal().log().sum()
        return Flowed(z=z.view_as(x), logdet=logdet.expand(len(x)))

    def inverse(self, z: Tensor) -> Tensor:
        return (z.flatten(1) @ self.factor.T + self.mean).view_as(z)


@pytest.fixture
def fitted():
    """A flow that is the Gaussian of greatest likelihood of correlated 8-bit images."""
    dims, count = 12, 200
    generator = stream("correlated")
    mixing = torch.randn(dims, dims, generator=generator, dtype=torch.float64) / dims**0.5
    latent = torch.randn(count, dims, generator=generator, dtype=torch.float64)
    levels = (128 + 40 * latent @ mixing.T).round().clamp(0, 255).view(count, 3, 2, 2)

    model = tiny_pretzel(Unconditional, image_size=2, patch_size=1)
    assert isinstance(model.latent, Pixels)
    whiten = Whiten(3, (2, 2))
    model.shallow.blocks.insert(0, whiten)
    module = module_of(model)
    seen = Density(torch.zeros_like)
    bits(seen, levels)  # the dequantised images, whose noise is keyed by sample
    x = model.latent.encode(seen.seen).flatten(1)
    centred = x - x.mean(0)
    covariance = centred.T @ centred / count
    whiten.mean.copy_(x.mean(0))
    whiten.factor.copy_(torch.linalg.cholesky(covariance))
    return module, levels, x, covariance


def test_a_linear_flow_is_the_full_gaussian_of_every_image(fitted):
    module, levels, x, covariance = fitted
    with torch.no_grad():
        found = bits(module, levels)
    gaussian = MultivariateNormal(x.mean(0), covariance)
    expected = -gaussian.log_prob(x) / (12 * LN2) + math.log2(127.5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    back = module.pretzel.shallow.inverse(module.pretzel.shallow(x.view(-1, 4, 3)).z)
    torch.testing.assert_close(back.flatten(1), x, rtol=0, atol=1e-9)


def test_the_mean_of_a_fitted_gaussian_is_its_entropy(fitted):
    # of greatest likelihood: the mean of (x - m)' S^-1 (x - m) over the data is their dimension
    module, levels, _, covariance = fitted
    with torch.no_grad():
        found = bits(module, levels).mean().item()
    entropy = 0.5 * (12 * math.log(2 * math.pi * math.e) + torch.logdet(covariance).item())
    assert found == pytest.approx(entropy / (12 * LN2) + math.log2(127.5), abs=1e-9)
    # a diagonal Gaussian fitted as well costs more, by what the correlations are worth
    diagonal = 0.5 * (12 * math.log(2 * math.pi * math.e) + covariance.diagonal().log().sum())
    assert diagonal > entropy + 1
