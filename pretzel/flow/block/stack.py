"""Flow blocks applied one after the other."""

from collections.abc import Iterator

from torch import nn

from pretzel.flow.block.base import FlowBlock, Flowed, no_logdet
from pretzel.flow.context import Context
from pretzel.typing import Float, Tensor


class FlowStack(nn.Module):
    """Blocks applied one after another, data side first: a shallow flow f_S, or a whole TarFlow."""

    def __init__(self, blocks: list[FlowBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def __iter__(self) -> Iterator[FlowBlock]:
        for block in self.blocks:
            assert isinstance(block, FlowBlock)
            yield block

    def forward(self, x: Float[Tensor, "b n d"], context: Context | None = None) -> Flowed:
        """Map latents x to u, with log|det du/dx| in nats."""
        logdet = no_logdet(x)
        for block in self:
            flowed = block(x, context) if block.reads_context else block(x)
            x, logdet = flowed.z, logdet + flowed.logdet
        return Flowed(z=x, logdet=logdet)

    def inverse(
        self, z: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n d"]:
        """Map u back to latents x."""
        for block in reversed(list(self)):
            z = block.inverse(z, context) if block.reads_context else block.inverse(z)
        return z
