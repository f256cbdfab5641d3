"""Latent spaces: the grids of vectors that a flow models, with ``encode`` and ``decode``."""

from pretzel.latent.autoencoder import Autoencoder, ConvAutoencoder
from pretzel.latent.base import LatentSpace
from pretzel.latent.diffusers_vae import DiffusersVAE
from pretzel.latent.fae import FAE
from pretzel.latent.linear import LinearLatents
from pretzel.latent.patches import Patches
from pretzel.latent.pixels import Pixels

__all__ = [
    "FAE",
    "Autoencoder",
    "ConvAutoencoder",
    "DiffusersVAE",
    "LatentSpace",
    "LinearLatents",
    "Patches",
    "Pixels",
]
