"""Vision-language model streams: frozen causal models that read text and image positions."""

from pretzel.vlm.base import SpecialTokens, VLMStream

__all__ = ["SpecialTokens", "VLMStream"]
