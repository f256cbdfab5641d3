"""The laws of denoisers."""

import torch

from pretzel.sampling.denoise import Denoiser
from pretzel.testing.case import FP64, Case, normal
from pretzel.testing.deviation import Deviation, within
from pretzel.typing import Float, Tensor

SIGMA = 0.3


def log_prob(x: Float[Tensor, "m n d"]) -> Float[Tensor, " m"]:
    """Return the log-density, up to a constant, of N(1, 4) in every dimension."""
    return -0.5 * ((x - 1) / 2).square().sum(dim=(1, 2))


def without_noise_nothing_changes(case: Case[Denoiser]) -> Deviation:
    """With sigma 0 the latents change."""
    x = normal(3, 4, 5)
    return within(case.build()(x, 0.0, log_prob), x, FP64, "latents at sigma 0")


def inputs_are_not_modified(case: Case[Denoiser]) -> Deviation:
    """The denoiser writes into the latents it is given."""
    x = normal(3, 4, 5)
    given = x.clone()
    case.build()(given, SIGMA, log_prob)
    return within(given, x, 0.0, "latents afterwards")


def inference_mode_changes_nothing(case: Case[Denoiser]) -> Deviation:
    """Under inference mode, in which Lightning validates, the result differs or none comes."""
    denoiser = case.build()
    expected = denoiser(normal(3, 4, 5), SIGMA, log_prob)
    with torch.inference_mode():
        x = normal(3, 4, 5)
        found = denoiser(x, SIGMA, log_prob)
    return within(found.clone(), expected, 0.0, "latents under inference mode")
