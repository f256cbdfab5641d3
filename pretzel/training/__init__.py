"""How the models train: module, loss, stages, optimizer, schedule, text states, pretraining."""

from pretzel.training.autoencoder import AutoencoderTraining
from pretzel.training.loss import Loss
from pretzel.training.module import PretzelModule
from pretzel.training.optimizer import MuonAdamW
from pretzel.training.schedule import Constant, Schedule, WarmupCosine
from pretzel.training.text_states import TextStates
from pretzel.training.vlm_pretraining import TinyVLMPretraining

__all__ = [
    "AutoencoderTraining",
    "Constant",
    "Loss",
    "MuonAdamW",
    "PretzelModule",
    "Schedule",
    "TextStates",
    "TinyVLMPretraining",
    "WarmupCosine",
]
