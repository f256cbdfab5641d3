"""Vision-language model streams: frozen causal models that read text and image positions."""

from pretzel.sequence.special_tokens import SpecialTokens
from pretzel.vlm.base import VLMStream

__all__ = ["SpecialTokens", "VLMStream"]
