"""Interleavings: who feeds whom."""

from pretzel.interleave.adapter import Adapter, LinearAdapter, MLPAdapter, NoAdapter
from pretzel.interleave.base import Interleaving
from pretzel.interleave.mixture import MixtureOfTransformers
from pretzel.interleave.skips import GatedSkip, RandomSkip, SkipConnection, ZeroSkip
from pretzel.interleave.stacked import Stacked
from pretzel.interleave.text_prefix import TextPrefix
from pretzel.interleave.tiled import Tiled
from pretzel.interleave.unconditional import Unconditional
from pretzel.interleave.vision_input import FlowInput, LatentInput, TowerInput, VisionInput

__all__ = [
    "Adapter",
    "FlowInput",
    "GatedSkip",
    "Interleaving",
    "LatentInput",
    "LinearAdapter",
    "MLPAdapter",
    "MixtureOfTransformers",
    "NoAdapter",
    "RandomSkip",
    "SkipConnection",
    "Stacked",
    "TextPrefix",
    "Tiled",
    "TowerInput",
    "Unconditional",
    "VisionInput",
    "ZeroSkip",
]
