"""Sizes that are measured, and flows of these sizes with their inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from pretzel.flow import AFBlock, AffineSoftplus, CausalTransformer, Flip, FlowStack, Raster
from pretzel.flow.context import PrefixContext
from pretzel.rng import stream
from pretzel.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of a flow: shallow blocks, and a deep one that reads a text before the image.

    Attributes:
        side: Rows and columns of the latent grid.
        channels: Channels of a latent position.
        width: Channels of the transformers, and of the text states.
        head_dim: Channels of a head.
        layers: Layers of each block, the deep one last.
        text: Text states before the image in the deep block; 0 for a flow without text.
        batch: Images.
    """

    side: int
    channels: int
    width: int
    head_dim: int
    layers: tuple[int, ...]
    text: int
    batch: int

    @property
    def num_positions(self) -> int:
        """Positions of the grid."""
        return self.side**2

    @property
    def texts(self) -> Sequence[int]:
        """Text states before the image in each block."""
        return [0] * (len(self.layers) - 1) + [self.text]

    def __str__(self) -> str:
        text = f", {self.text} text states in the last" if self.text else ""
        return (
            f"grid {self.side}x{self.side}x{self.channels}, width {self.width}, heads of "
            f"{self.head_dim}, blocks of {list(self.layers)} layers{text}, batch {self.batch}"
        )


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A flow with its inputs.

    Attributes:
        size: Its sizes.
        stack: The flow, its heads away from zero.
        x: Latents; noise where one samples.
        text: Text states of each image; None for a flow without text.
        null: The null branch's text states.
    """

    size: Size
    stack: FlowStack
    x: Float[Tensor, "b n d"]
    text: Float[Tensor, "b l w"] | None
    null: Float[Tensor, "b l w"] | None

    @property
    def both(self) -> Float[Tensor, "r l w"]:
        """Texts of the images, then the null branch's."""
        assert self.text is not None
        assert self.null is not None
        return torch.cat([self.text, self.null])


def build(size: Size, device: torch.device) -> Problem:
    """Return the flow of a size with random weights, data and texts."""
    blocks = []
    for number, (layers, text) in enumerate(zip(size.layers, size.texts, strict=True)):
        block = AFBlock(
            size.channels,
            (size.side, size.side),
            layers,
            Flip() if number % 2 else Raster(),
            transform=AffineSoftplus(),
            conditioner=partial(CausalTransformer, width=size.width, head_dim=size.head_dim),
            context=partial(PrefixContext, channels=size.width) if text else None,
        )
        torch.nn.init.normal_(block.head.weight, std=0.3 * size.width**-0.5)
        blocks.append(block)
    generator = stream("benchmark")

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    x = draw(size.batch, size.num_positions, size.channels)
    texts = draw(2, size.batch, size.text, size.width) if size.text else (None, None)
    return Problem(
        size=size, stack=FlowStack(list(blocks)).to(device), x=x, text=texts[0], null=texts[1]
    )
