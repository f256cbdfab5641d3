"""Sampling through a stack of blocks."""

from dataclasses import dataclass

from pretzel.flow.block import AutoregressiveBlock, FlowStack
from pretzel.flow.context import Context
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.inversion import BlockInversion
from pretzel.sampling.samplers import Sampler, Work
from pretzel.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Samples, and what they took.

    Attributes:
        x: Latents, raster order.
        work: Network evaluations of each block, in the order of sampling; none for a block that
            inverts itself.
    """

    x: Float[Tensor, "m n d"]
    work: tuple[Work, ...]


def invert_stack(
    stack: FlowStack,
    z: Float[Tensor, "m n d"],
    sampler: Sampler,
    *,
    context: Context | None = None,
    null_context: Context | None = None,
    guidance: Guidance | None = None,
    temperature: float = 1.0,
    first: int = 0,
) -> Sampled:
    """Invert the blocks of a stack, the last first.

    Guided are the blocks that read the context, or all of them where none does (which only an
    attention temperature guides). ``temperature`` divides the attention logits of all branches;
    ``first`` is the number of the stack's last block in the order of sampling.

    Raises:
        UserError: If a block cannot be guided, or gives values that are not finite.
    """
    work = []
    conditional = any(block.reads_context for block in stack)
    for number, block in enumerate(reversed(list(stack)), start=first):
        if isinstance(block, AutoregressiveBlock):
            # A block that does not see the condition is the same with and without it.
            mixing = guidance if block.reads_context or not conditional else None
            inversion = BlockInversion(block, z, context, null_context, mixing, temperature)
            work.append(sampler.solve(inversion, number))
            z = inversion.x
        else:
            z = block.inverse(z, context) if block.reads_context else block.inverse(z)
            work.append(Work())
    return Sampled(x=z, work=tuple(work))
