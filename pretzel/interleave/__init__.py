"""Interleavings: who feeds whom."""

from pretzel.interleave.base import Interleaving
from pretzel.interleave.stacked import Stacked
from pretzel.interleave.text_prefix import TextPrefix
from pretzel.interleave.unconditional import Unconditional

__all__ = ["Interleaving", "Stacked", "TextPrefix", "Unconditional"]
