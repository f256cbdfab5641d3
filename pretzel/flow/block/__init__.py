"""Flow blocks: invertible maps of a latent grid, and the contract of the autoregressive ones."""

from pretzel.flow.block.autoregressive import AutoregressiveBlock
from pretzel.flow.block.base import BlockFactory, FlowBlock, Flowed
from pretzel.flow.block.identity import Identity
from pretzel.flow.block.stack import FlowStack

__all__ = ["AutoregressiveBlock", "BlockFactory", "FlowBlock", "FlowStack", "Flowed", "Identity"]
