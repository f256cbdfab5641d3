"""The feature autoencoder (FAE, arXiv 2512.07829): latents of a frozen vision encoder."""

from pretzel.latent.fae.bottleneck import AttentionBottleneck, Bottleneck, NoBottleneck
from pretzel.latent.fae.feature_decoder import (
    FeatureDecoder,
    NoFeatureDecoder,
    TransformerFeatureDecoder,
)
from pretzel.latent.fae.latents import FAE
from pretzel.latent.fae.network import FAENetwork
from pretzel.latent.fae.pixel_decoder import ConvPixelDecoder, PixelDecoder, ViTPixelDecoder

__all__ = [
    "FAE",
    "AttentionBottleneck",
    "Bottleneck",
    "ConvPixelDecoder",
    "FAENetwork",
    "FeatureDecoder",
    "NoBottleneck",
    "NoFeatureDecoder",
    "PixelDecoder",
    "TransformerFeatureDecoder",
    "ViTPixelDecoder",
]
