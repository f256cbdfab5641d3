"""The tiny vision-language model that is shipped: pretrained on the embedded data, frozen."""

from pretzel.vlm.tiny.stream import TinyVLM

__all__ = ["TinyVLM"]
