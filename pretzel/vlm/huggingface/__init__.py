"""Hugging Face models as streams of Pretzel."""

from pretzel.vlm.huggingface.stream import HuggingFaceVLM

__all__ = ["HuggingFaceVLM"]
