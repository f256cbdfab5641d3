"""A flow block that convolves instead of attending."""

from pretzel_causal_conv.block import CausalConvBlock

__all__ = ["CausalConvBlock"]
