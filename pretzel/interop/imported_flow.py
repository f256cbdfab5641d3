"""Published models as ours: the configuration of every AFBlock, and its weights by our names."""

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


@dataclass(frozen=True, kw_only=True)
class ImportedBlock:
    """A block of a published model.

    Attributes:
        number: Its number there, from the data side; blocks without layers are left out.
        flips: Whether it visits the positions backwards.
        num_layers: Its layers.
        node: What makes it, as in YAML.
        tensors: Its weights, by their names in the block.
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
    """A published model.

    Attributes:
        channels: Channels D of a position.
        grid: Grid on which it was trained.
        blocks: Its blocks, data side first.
        report: What became of every key; names are those of :meth:`stack`.
        condition: Channels of the text it reads, or its number of classes; 0 for neither.
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
        """Return the model as a stack of our blocks, in the precision of its weights.

        Args:
            grid: Grid of the latents; None for that of the training.

        Raises:
            UserError: If the weights do not fit, as learned positions on another grid.
        """
        stack = self._build(grid)
        dtype = next(iter(self.tensors.values())).dtype
        check_architecture(stack.state_dict(), self.tensors, "weights")
        stack.to(dtype).load_state_dict(self.tensors)
        return stack

    def check(self, grid: tuple[int, ...] | None = None) -> None:
        """Check names and shapes of the weights without making any.

        Raises:
            UserError: If they do not fit.
        """
        with torch.device("meta"):
            own = self._build(grid).state_dict()
        check_architecture(own, self.tensors, "weights")

    def _build(self, grid: tuple[int, ...] | None) -> FlowStack:
        return FlowStack(
            [
                factory(block.node)(
                    self.channels, grid or self.grid, block.num_layers, block.permutation
                )
                for block in self.blocks
            ]
        )


def factory(node: Node) -> BlockFactory:
    """Return what a block's node makes, as the parser of the command line would."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--block", type=BlockFactory)
    made: BlockFactory = parser.instantiate(parser.parse_object({"block": node})).block
    return made


def side_of(positions: int, what: str) -> int:
    """Return the side of a square grid.

    Raises:
        UserError: If the positions are no square number.
    """
    side = math.isqrt(positions)
    if side * side != positions:
        raise UserError(f"{what} must have a square number of positions, got {positions}")
    return side
