"""Frozen vision encoders: images to grids of feature vectors."""

from pretzel.latent.features.base import FeatureEncoder
from pretzel.latent.features.efficientnet_lite import EfficientNetLite0
from pretzel.latent.features.pixel_patches import PixelPatches
from pretzel.latent.features.transformers_vision import TransformersVision

__all__ = ["EfficientNetLite0", "FeatureEncoder", "PixelPatches", "TransformersVision"]
