"""How the models train: module, loss, stages, optimizer, schedule, text states, pretraining."""

from pretzel.training.autoencoder import AutoencoderTraining
from pretzel.training.fae_features import FeatureAutoencoderTraining
from pretzel.training.fae_pixels import PixelDecoderTraining
from pretzel.training.image_losses import (
    AbsoluteError,
    AdversarialLoss,
    ImageLoss,
    PerceptualDistance,
    SquaredError,
)
from pretzel.training.linear_latents import LinearLatentsFit
from pretzel.training.loss import Loss
from pretzel.training.module import PretzelModule
from pretzel.training.optimizer import MuonAdamW
from pretzel.training.schedule import Constant, Schedule, WarmupCosine
from pretzel.training.text_states import TextStates
from pretzel.training.vlm_pretraining import TinyVLMPretraining

__all__ = [
    "AbsoluteError",
    "AdversarialLoss",
    "AutoencoderTraining",
    "Constant",
    "FeatureAutoencoderTraining",
    "ImageLoss",
    "LinearLatentsFit",
    "Loss",
    "MuonAdamW",
    "PerceptualDistance",
    "PixelDecoderTraining",
    "PretzelModule",
    "Schedule",
    "SquaredError",
    "TextStates",
    "TinyVLMPretraining",
    "WarmupCosine",
]
