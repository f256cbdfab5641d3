"""The laws of denoisers.

A denoiser that takes sizes (:meth:`pretzel.sampling.Denoiser.fit_to`) is fitted by its
factory to the latents of the laws: ``CHANNELS`` on a grid of ``POSITIONS`` positions.
"""

import torch

from pretzel.sampling.denoisers import Denoiser, TrainableDenoiser
from pretzel.testing.deviation import Deviation, require, unmeasured, within
from pretzel.testing.gradients import check_gradients
from pretzel.testing.law_case import FP64, Case, normal
from pretzel.typing import Float, Tensor

SIGMA = 0.3
IMAGES, POSITIONS, CHANNELS = 3, 4, 5
SHAPE = (IMAGES, POSITIONS, CHANNELS)


def log_prob(x: Float[Tensor, "m n d"]) -> Float[Tensor, " m"]:
    """Return the log-density, up to a constant, of N(1, 4) in every dimension."""
    return -0.5 * ((x - 1) / 2).square().sum(dim=(1, 2))


def without_noise_nothing_changes(case: Case[Denoiser]) -> Deviation:
    """With sigma 0 the latents change."""
    x = normal(*SHAPE)
    return within(case.build()(x, 0.0, log_prob), x, FP64, "latents at sigma 0")


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
