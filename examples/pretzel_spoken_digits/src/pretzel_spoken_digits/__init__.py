"""Spoken digits for Pretzel: sound as a latent space, its data, and its metric."""

from pretzel_spoken_digits.latents import MelLatents
from pretzel_spoken_digits.metric import SpokenDigitAccuracy

__all__ = ["MelLatents", "SpokenDigitAccuracy"]
