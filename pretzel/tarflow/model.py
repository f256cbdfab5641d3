"""TarFlow: a stack of autoregressive blocks over the latents, by itself.

TarFlow (arXiv 2412.06329) has equal blocks that all read the class; STARFlow (arXiv 2506.06276) a
few shallow blocks and a deep one, which alone reads the text. Both are this class, with another
split, other blocks and another condition.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile

from pretzel.errors import UserError
from pretzel.flow.block import AutoregressiveBlock, BlockFactory, FlowBlock, FlowStack
from pretzel.flow.context import Context
from pretzel.flow.layer_split import Split, layer_costs
from pretzel.flow.permutations import Permutation
from pretzel.flow.transforms import Transform
from pretzel.latent.base import LatentSpace
from pretzel.latent.generative_model import FrozenPart, GenerativeModel, Scores, normal_log_prob
from pretzel.sequence.document import Document, Image
from pretzel.tarflow.condition import Condition
from pretzel.typing import Float, Tensor


class TarFlow(GenerativeModel):
    """An autoregressive flow by itself: z = f_K( ... f_1(x, context) ..., context).

    Args:
        latent: Latent space of the images, with its noise; frozen.
        split: Layers of the shallow blocks and of the deep one, which is the last.
        permutations: Scan orders of all blocks, data side first, repeated over them in turn.
        shallow: Makes a shallow block, given channels, grid, layers and permutation.
        deep: Makes the deep block, given the same.
        condition: Makes the context of conditioned blocks from the text before the image.

    Raises:
        UserError: If there are no permutations, the condition and the blocks do not agree on
            whether there is a context, or a block cannot read the condition's.
    """

    def __init__(
        self,
        latent: LatentSpace,
        split: Split,
        permutations: list[Permutation],
        shallow: BlockFactory,
        deep: BlockFactory,
        condition: Condition,
    ) -> None:
        super().__init__()
        if not permutations:
            raise UserError("permutations must name at least one scan order, got an empty list")
        channels, grid = latent.channels, latent.grid
        self.latent = latent
        order = permutations[0]
        layers = split.layers(
            lambda: layer_costs(
                lambda n: shallow(channels, grid, n, order),
                lambda n: deep(channels, grid, n, order),
            )
        )
        blocks: list[FlowBlock] = []
        for number, num_layers in enumerate((*layers.shallow, layers.deep)):
            factory = deep if number == len(layers.shallow) else shallow
            permutation = permutations[number % len(permutations)]
            blocks.append(factory(channels, grid, num_layers, permutation))
        self.stack = FlowStack(blocks)
        self.text_condition = condition
        self.reads_text = condition.reads_text
        self.answers = False
        if self.reads_text != any(block.reads_context for block in blocks):
            clash = "a block has a context and would be given none"
            if self.reads_text:
                clash = "no block has a context to read it"
            name = type(condition).__name__
            raise UserError(f"condition {name} and the blocks must agree: {clash}")
        for block in blocks:
            condition.check(block)

    @property
    def frozen(self) -> Mapping[str, FrozenPart]:
        """The latent space and the condition."""
        return {"latent": self.latent, "text_condition": self.text_condition}

    @property
    def guided_transforms(self) -> Sequence[Transform]:
        """The transforms of the blocks that read the context, or of all if none does."""
        blocks = [block for block in self.stack if isinstance(block, AutoregressiveBlock)]
        guided = [block for block in blocks if block.reads_context] or blocks
        return [block.transform for block in guided]

    def condition(self, texts: Sequence[str | None]) -> Context | None:
        """Return the context of texts, on the device of the model."""
        return self.text_condition(texts, self.device)

    def score(self, documents: Sequence[Document], x: Float[Tensor, "m n d"]) -> Scores:
        """Return the likelihoods of the first image of each document, given the text before it.

        Raises:
            UserError: If the documents do not hold as many images as there are latents.
        """
        first, num_images = [], 0
        for document in documents:
            if document.num_images:
                first.append(num_images)
            num_images += document.num_images
        if num_images != len(x):
            raise UserError(
                f"these documents hold {num_images} images, got the latents of {len(x)}"
            )
        if len(first) < len(x):
            x = x[first]
        texts = [_text_before(document) for document in documents if document.num_images]
        flowed = self.stack(x, self.condition(texts))
        return Scores(
            z=flowed.z,
            u=flowed.z,
            log_prob=normal_log_prob(flowed.z) + flowed.logdet,
            token_nll=x.new_zeros(0),
        )


def _text_before(document: Document) -> str | None:
    """Return the text before the first image; None if there is none, or it was dropped."""
    before = takewhile(lambda segment: not isinstance(segment, Image), document.segments)
    return Document(key="", segments=tuple(before)).text or None
