"""Imported models: the configuration of every block as an AFBlock, and its weights."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jsonargparse import ArgumentParser

from pretzel.errors import UserError
from pretzel.files.weights import check_architecture
from pretzel.flow.block import BlockFactory, FlowStack
from pretzel.flow.permutations import Flip, Permutation, Raster
from pretzel.interop.checkpoint import KeyReport
from pretzel.typing import Tensor

Node = dict[str, Any]
"""A part in a configuration: ``class_path`` and ``init_args``."""


def node(path: str, /, **arguments: object) -> Node:
    """Return the node of a class of ours, given its path below ``pretzel``."""
    made: Node = {"class_path": f"pretzel.{path}"}
    return made | ({"init_args": arguments} if arguments else {})


@dataclass(frozen=True, kw_only=True)
class ImportedBlock:
    """A block of a published model, as an AFBlock.

    Attributes:
        number: Number in the published model, data side first; blocks without layers are left out.
        flips: Whether it visits the positions backwards.
        num_layers: Layers.
        node: Configuration of the block.
        tensors: Weights, by their names in the AFBlock.
    """

    number: int
    flips: bool
    num_layers: int
    node: Node
    tensors: dict[str, Tensor]

    @property
    def permutation(self) -> Permutation:
        """The scan order."""
        return Flip() if self.flips else Raster()


@dataclass(frozen=True, kw_only=True)
class ImportedFlow:
    """A published model, as a stack of AFBlocks.

    Attributes:
        channels: Channels D of a position.
        grid: Grid on which it was trained.
        blocks: Blocks, data side first.
        report: Account of every key; names are those of :meth:`stack`.
        condition: Channels of its text states, or its number of classes; 0 for neither.
        text_length: Tokens of the text; 0 for none.
    """

    channels: int
    grid: tuple[int, ...]
    blocks: tuple[ImportedBlock, ...]
    report: KeyReport
    condition: int = 0
    text_length: int = 0

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All weights, by their names in :meth:`stack`."""
        return {
            f"blocks.{index}.{name}": value
            for index, block in enumerate(self.blocks)
            for name, value in block.tensors.items()
        }

    def stack(self, grid: tuple[int, ...] | None = None) -> FlowStack:
        """Return the model as a stack of blocks, in the precision of its weights.

        The grid is that of the latents, by default the one of training.

        Raises:
            UserError: If the weights do not fit, such as learned positions of another grid.
        """
        stack = self._build(grid)
        dtype = next(iter(self.tensors.values())).dtype
        check_architecture(stack.state_dict(), self.tensors, "weights")
        stack.to(dtype).load_state_dict(self.tensors)
        return stack

    def check(self, grid: tuple[int, ...] | None = None) -> None:
        """Refuse weights that do not fit, by names and shapes, without allocating a model."""
        with torch.device("meta"):
            state = self._build(grid).state_dict()
        check_architecture(state, self.tensors, "weights")

    def _build(self, grid: tuple[int, ...] | None) -> FlowStack:
        sizes = self.channels, grid or self.grid
        return FlowStack(
            [block_factory(b.node)(*sizes, b.num_layers, b.permutation) for b in self.blocks]
        )


def block_factory(block: Node) -> BlockFactory:
    """Return the factory that a block's node describes, as the command line parses it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--block", type=BlockFactory)
    factory: BlockFactory = parser.instantiate(parser.parse_object({"block": block})).block
    return factory


def side_of(positions: int, name: str) -> int:
    """Return the side of a square grid; refuse a number of positions that is no square."""
    side = math.isqrt(positions)
    if side * side != positions:
        raise UserError(f"{name} must have a square number of positions, got {positions}")
    return side
