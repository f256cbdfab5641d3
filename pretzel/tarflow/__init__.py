"""TarFlow and STARFlow: stacks of autoregressive blocks, perhaps conditioned, without a VLM."""

from pretzel.tarflow.condition import ClassNames, Condition, NoCondition
from pretzel.tarflow.model import TarFlow
from pretzel.tarflow.text_encoder import TextEncoder

__all__ = ["ClassNames", "Condition", "NoCondition", "TarFlow", "TextEncoder"]
