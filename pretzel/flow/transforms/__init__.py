"""Elementwise transforms of one latent position, given raw parameters."""

from pretzel.flow.transforms.affine import AffineExp, AffineSoftplus, AffineTransform
from pretzel.flow.transforms.base import SOFTPLUS_ONE, Transform
from pretzel.flow.transforms.mixture import MixtureCDF
from pretzel.flow.transforms.soft_clip import SoftClip
from pretzel.flow.transforms.spline import Spline
from pretzel.flow.transforms.volume_preserving import VolumePreserving

__all__ = [
    "SOFTPLUS_ONE",
    "AffineExp",
    "AffineSoftplus",
    "AffineTransform",
    "MixtureCDF",
    "SoftClip",
    "Spline",
    "Transform",
    "VolumePreserving",
]
