"""The mathematics of sampling one image: samplers, guidance, denoisers, inversion."""

from pretzel.sampling.denoisers import Denoiser, NoDenoiser, ScoreDenoiser, TrainableDenoiser
from pretzel.sampling.guidance import (
    AttentionTemperature,
    GaussianMixing,
    Guidance,
    LinearGuidance,
    NoGuidance,
)
from pretzel.sampling.learned_denoiser import LearnedDenoiser
from pretzel.sampling.samplers import (
    GaussSeidelJacobi,
    Jacobi,
    Sampler,
    SelectiveJacobi,
    Sequential,
)

__all__ = [
    "AttentionTemperature",
    "Denoiser",
    "GaussSeidelJacobi",
    "GaussianMixing",
    "Guidance",
    "Jacobi",
    "LearnedDenoiser",
    "LinearGuidance",
    "NoDenoiser",
    "NoGuidance",
    "Sampler",
    "ScoreDenoiser",
    "SelectiveJacobi",
    "Sequential",
    "TrainableDenoiser",
]
