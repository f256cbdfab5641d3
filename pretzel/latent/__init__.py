"""Latent spaces: what the flow models, behind one ``encode`` and ``decode``."""

from pretzel.latent.autoencoder import Autoencoder, ConvAutoencoder
from pretzel.latent.base import LatentSpace
from pretzel.latent.diffusers_vae import DiffusersVAE
from pretzel.latent.pixels import Pixels

__all__ = ["Autoencoder", "ConvAutoencoder", "DiffusersVAE", "LatentSpace", "Pixels"]
