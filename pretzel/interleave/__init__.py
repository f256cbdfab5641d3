"""Interleavings: who feeds whom."""

from pretzel.interleave.adapter import Adapter, LinearAdapter, MLPAdapter, NoAdapter
from pretzel.interleave.base import Interleaving
from pretzel.interleave.links import GatedLink, Link, RandomLink, ZeroLink
from pretzel.interleave.mixture import MixtureOfTransformers
from pretzel.interleave.sight import SeesFlow, SeesLatents, SeesTower, Sight
from pretzel.interleave.stacked import Stacked
from pretzel.interleave.text_prefix import TextPrefix
from pretzel.interleave.tiled import Tiled
from pretzel.interleave.unconditional import Unconditional

__all__ = [
    "Adapter",
    "GatedLink",
    "Interleaving",
    "LinearAdapter",
    "Link",
    "MLPAdapter",
    "MixtureOfTransformers",
    "NoAdapter",
    "RandomLink",
    "SeesFlow",
    "SeesLatents",
    "SeesTower",
    "Sight",
    "Stacked",
    "TextPrefix",
    "Tiled",
    "Unconditional",
    "ZeroLink",
]
