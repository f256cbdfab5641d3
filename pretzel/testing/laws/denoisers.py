"""The laws of denoisers, on a Gaussian whose posterior mean is known.

A denoiser that takes sizes (:meth:`pretzel.sampling.Denoiser.fit_to`) is fitted by its
factory to the latents of the laws: ``CHANNELS`` on a grid of ``POSITIONS`` positions.
"""

from functools import cache

import torch
from torch import nn

from pretzel.sampling.denoisers import Denoiser, TrainableDenoiser
from pretzel.testing.deviation import Deviation, check, require, unmeasured, within, worst_of
from pretzel.testing.global_state import untouched
from pretzel.testing.gradients import check_gradients
from pretzel.testing.law_case import (
    FP32,
    FP64,
    INITIAL,
    Case,
    holds_under_dropout,
    normal,
    tried_in,
)
from pretzel.typing import Float, Tensor

SIGMA = 0.3
IMAGES, POSITIONS, CHANNELS = 6, 4, 5
SHAPE = (IMAGES, POSITIONS, CHANNELS)
_STEPS = 60


@cache
def gaussian() -> tuple[Float[Tensor, " k"], Float[Tensor, "k k"]]:
    """Return mean and precision of the noised latents of one image, all dimensions correlated."""
    dims = POSITIONS * CHANNELS
    root = normal(dims, dims, key="precision")
    # Eigenvalues of 1/2 at most: noise of a variance below 2 leaves clean latents a positive one.
    precision = root @ root.T
    return normal(dims, key="mean"), precision / (2 * torch.linalg.matrix_norm(precision, 2))


def log_prob(x: Float[Tensor, "m n d"]) -> Float[Tensor, " m"]:
    """Return the log-density of noised latents, up to a constant."""
    mean, precision = gaussian()
    centred = x.flatten(1) - mean.to(x)
    log_density: Tensor = -0.5 * ((centred @ precision.to(x)) * centred).sum(dim=1)
    return log_density


def posterior_mean(x: Float[Tensor, "m n d"], sigma: float) -> Float[Tensor, "m n d"]:
    """Return E[clean | x] of the Gaussian: the clean latents are those without the noise."""
    mean, precision = gaussian()
    return x - sigma**2 * ((x.flatten(1) - mean) @ precision).view_as(x)


def noised_latents(rows: int, key: str = "x") -> Float[Tensor, "m n d"]:
    """Return samples of the Gaussian."""
    mean, precision = gaussian()
    root: Tensor = torch.linalg.cholesky(torch.linalg.inv(precision))
    z = normal(rows, len(mean), key=key)
    return (mean + z @ root.T).view(rows, POSITIONS, CHANNELS)


def exercise(denoiser: Denoiser) -> None:
    """Denoise once."""
    denoiser(normal(*SHAPE), SIGMA, log_prob)


def density_gives_the_posterior_mean(case: Case[Denoiser]) -> Deviation:
    """A denoiser that asks the density does not return the posterior mean of a Gaussian."""
    denoiser, x = case.build(), noised_latents(IMAGES)
    results = []
    for sigma in (SIGMA, 0.9):
        asked: list[int] = []

        def asking(latents: Tensor, asked: list[int] = asked) -> Tensor:
            asked.append(len(latents))
            return log_prob(latents)

        estimate = denoiser(x, sigma, asking)
        if asked:
            expected = posterior_mean(x, sigma)
            results.append(within(estimate, expected, FP64, f"E[clean | x] at sigma {sigma:g}"))
    return worst_of(*results) if results else unmeasured("the density is not asked")


@holds_under_dropout
@tried_in(INITIAL)
def loss_teaches_the_posterior_mean(case: Case[Denoiser]) -> Deviation:
    """Trained by its loss towards the posterior mean, a denoiser comes no nearer to it."""
    denoiser, sigma, rows = case.build(), 0.9, 64
    if not isinstance(denoiser, TrainableDenoiser):
        return unmeasured("nothing trains")
    x = noised_latents(rows, key="unseen")
    expected = posterior_mean(x, sigma)
    before = float((denoiser(x, sigma, log_prob) - expected).norm())
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=0.02)
    for step in range(_STEPS):
        noised = noised_latents(rows, key=f"noised {step}")
        optimizer.zero_grad()
        loss = denoiser.loss(noised, posterior_mean(noised, sigma), sigma).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = float((denoiser.eval()(x, sigma, log_prob) - expected).norm())
    what = f"distance from E[clean | x], {before:.2g} before training"
    return check(Deviation(what=what, error=after, tolerance=0.95 * before))


def without_noise_nothing_changes(case: Case[Denoiser]) -> Deviation:
    """With sigma 0 the latents change."""
    x = normal(*SHAPE)
    return within(case.build()(x, 0.0, log_prob), x, FP64, "latents at sigma 0")


@holds_under_dropout
def inputs_are_not_modified(case: Case[Denoiser]) -> Deviation:
    """The denoiser writes into the latents it is given."""
    x = normal(*SHAPE)
    argument = x.clone()
    case.build()(argument, SIGMA, log_prob)
    return within(argument, x, 0.0, "latents afterwards")


def inference_mode_changes_nothing(case: Case[Denoiser]) -> Deviation:
    """Under inference mode, in which Lightning validates, the denoiser fails or differs."""
    denoiser = case.build()
    expected = denoiser(normal(*SHAPE), SIGMA, log_prob)
    with torch.inference_mode():
        x = normal(*SHAPE)
        actual = denoiser(x, SIGMA, log_prob)
    return within(actual.clone(), expected, 0.0, "latents under inference mode")


def latents_made_under_inference_mode_are_taken(case: Case[Denoiser]) -> Deviation:
    """Latents made under inference mode, and denoised outside of it, fail or differ."""
    denoiser = case.build()
    expected = denoiser(normal(*SHAPE), SIGMA, log_prob)
    with torch.inference_mode():
        x = normal(*SHAPE)
    actual = denoiser(x, SIGMA, log_prob)
    return within(actual.clone(), expected, 0.0, "latents made under inference mode")


def images_do_not_mix(case: Case[Denoiser]) -> Deviation:
    """A denoised image depends on the other images of the batch."""
    denoiser, x = case.build(), normal(*SHAPE)
    together = denoiser(x, SIGMA, log_prob)
    alone = torch.cat([denoiser(row[None], SIGMA, log_prob) for row in x])
    return within(together, alone, FP64, "latents of one image")


def calls_leave_no_state(case: Case[Denoiser]) -> Deviation:
    """Denoising draws from or seeds a global random state, or depends on what was denoised before.

    Of one denoiser, and of another with the same state dict: what a call keeps would be lost.
    """
    denoiser, x = case.build(), normal(*SHAPE)
    with untouched("denoising"):
        first = denoiser(x, SIGMA, log_prob)
    denoiser(normal(*SHAPE, key="other") + 3, SIGMA, log_prob)
    results = [denoiser(x, SIGMA, log_prob)]
    if isinstance(denoiser, nn.Module):
        other = case.build(seed=1)
        assert isinstance(other, nn.Module)
        other.load_state_dict(denoiser.state_dict())
        results.append(other(x, SIGMA, log_prob))
    return within(torch.cat(results), torch.cat([first] * len(results)), 0.0, "latents once more")


def float32_is_close(case: Case[Denoiser]) -> Deviation:
    """In float32 the latents change their precision, or are off by more than 1e-4."""
    x = normal(*SHAPE)
    actual = case.build(dtype=torch.float32)(x.float(), SIGMA, log_prob)
    require(actual.dtype == torch.float32, f"float32 gives {actual.dtype}")
    return within(actual.double(), case.build()(x, SIGMA, log_prob), FP32, "latents in float32")


@holds_under_dropout
def parameters_learn_from_the_loss(case: Case[Denoiser]) -> Deviation:
    """A trainable parameter gets no finite gradient from the loss, or the loss reaches the data."""
    denoiser = case.build()
    if not isinstance(denoiser, TrainableDenoiser):
        return unmeasured("gradient")
    clean, noise = normal(*SHAPE), normal(*SHAPE, key="noise")
    noised = (clean + SIGMA * noise).requires_grad_()
    loss = denoiser.loss(noised, clean, SIGMA)
    require(loss.shape == (IMAGES,), f"loss: must be one an image, got shape {tuple(loss.shape)}")
    (reached,) = torch.autograd.grad(loss.sum(), noised, allow_unused=True, retain_graph=True)
    require(reached is None, "loss: it is differentiated with respect to the latents")
    return check_gradients(denoiser, loss.mean(), nonzero=case.perturbed)
