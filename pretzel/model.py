"""Pretzel: shallow flow, frozen vision-language model and deep stream, joined by an interleaving.

x = encode(image) + noise;  u = f_S(x);  z_n = T(u_n; state before n);  text from y_vlm + W_D y_D.
(arXiv 2605.08029)
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F

from pretzel.errors import UserError
from pretzel.flow.block import BlockFactory, FlowStack
from pretzel.flow.block.base import at_least_float32
from pretzel.flow.deep import DeepFactory, DeepStream
from pretzel.flow.generative_model import FrozenPart, GenerativeModel, Scores, normal_log_prob
from pretzel.flow.layer_split import Split, layer_costs
from pretzel.flow.permutations import Permutation, Raster
from pretzel.flow.transforms import Transform
from pretzel.interleave.base import Interleaving, InterleavingFactory, StreamInputs
from pretzel.latent.base import LatentSpace
from pretzel.sequence.document import Document
from pretzel.sequence.packed_batch import IGNORE, PackedBatch
from pretzel.sequence.packer import Packer
from pretzel.typing import Float, Int, Tensor
from pretzel.vlm.base import VLMStream


class Pretzel(GenerativeModel):
    """The unified model.

    Args:
        latent: Space in which images are modelled, with its noise; frozen.
        split: Layers of the shallow blocks and of the deep stream.
        permutations: Scan orders of the shallow blocks, repeated over them in turn.
        shallow: Shallow block; the model gives channels, grid, layers and permutation.
        deep: Deep stream; the model gives channels, grid and layers.
        vlm: Frozen vision-language model.
        interleaving: Who feeds whom; the model gives the sizes of the streams.
        pack_length: Positions of a row into which several documents are packed in training and
            scoring (the deep stream must take masks); None for one document a row.

    Raises:
        UserError: If there are shallow blocks but no permutations, or ``pack_length`` is not
            positive.
    """

    def __init__(
        self,
        latent: LatentSpace,
        split: Split,
        permutations: list[Permutation],
        shallow: BlockFactory,
        deep: DeepFactory,
        vlm: VLMStream,
        interleaving: InterleavingFactory,
        pack_length: int | None = None,
    ) -> None:
        super().__init__()
        if pack_length is not None and pack_length < 1:
            raise UserError(f"pack_length must be at least 1, got {pack_length}")
        self.pack_length = pack_length
        channels, grid = latent.channels, latent.grid
        layers = split.layers(
            lambda: layer_costs(
                lambda n: shallow(channels, grid, n, Raster()), lambda n: deep(channels, grid, n)
            )
        )
        if layers.shallow and not permutations:
            raise UserError("permutations must name at least one scan order, got an empty list")
        self.latent = latent
        self.shallow = FlowStack(
            [
                shallow(channels, grid, num_layers, permutations[i % len(permutations)])
                for i, num_layers in enumerate(layers.shallow)
            ]
        )
        self.deep: DeepStream = deep(channels, grid, layers.deep)
        self.vlm = vlm
        self.interleaving: Interleaving = interleaving(channels, vlm.hidden_size, self.deep.width)
        self.interleaving.check_streams(vlm, self.deep)
        if self.interleaving.vision_input is not None:
            self.interleaving.vision_input.check(latent, vlm)
        self.interleaving.start_from(vlm)
        self.reads_text = self.interleaving.reads_text
        self.answers = self.interleaving.answers
        self.packer = Packer(vlm.encode_text, vlm.special, grid, vlm.image_index(grid))

    @property
    def frozen(self) -> Mapping[str, FrozenPart]:
        """The vision-language model and the latent space."""
        return {"vlm": self.vlm, "latent": self.latent}

    @property
    def guided_transforms(self) -> Sequence[Transform]:
        """The deep stream's transform."""
        return [self.deep.transform]

    @property
    def _weight(self) -> Tensor:
        # Which parameters train depends on the stage: the first of those may be the adapter's.
        return self.deep.head.weight

    def score(self, documents: Sequence[Document], x: Float[Tensor, "m n d"]) -> Scores:
        """Return the likelihoods of noised latents and of supervised tokens.

        Documents may hold text and images in any order. What the interleaving's view of a document
        drops has no likelihood; where nothing remains of any document, there are none at all.

        Args:
            documents: Documents in whose order the images come.
            x: Noised latents of all images, those that the view drops included.

        Raises:
            UserError: If the documents do not hold ``m`` images, or one holds nothing.
        """
        packed, x = self._viewed(documents, x)
        if not packed.tokens.numel():
            none = normal_log_prob(x)
            return Scores(z=x, u=x, log_prob=none, token_nll=none)
        flowed = self.shallow(x)
        inputs = stream_inputs(packed, flowed.z, self.vision_features(flowed.z, x))
        streams = self.interleaving(inputs, self.vlm, self.deep)

        # The state before an image position gives its parameters; no image starts a row.
        before = streams.deep.flatten(0, 1)[packed.places(packed.is_image) - 1]
        params = self.deep.params(before.view(*x.shape[:2], before.shape[-1]))
        z, logdet = self.deep.transform.forward(flowed.z, params)
        summed = logdet.sum(dim=(1, 2), dtype=at_least_float32(logdet))
        return Scores(
            z=z,
            u=flowed.z,
            log_prob=normal_log_prob(z) + summed + flowed.logdet,
            token_nll=self._token_nll(streams.text, packed),
        )

    def score_text(self, documents: Sequence[Document], x: Float[Tensor, "m n d"]) -> Scores:
        """Return the likelihoods of supervised tokens alone, without running the deep stream.

        They are those of :meth:`score`, to the last bit, where the interleaving has
        ``skips_to_text`` and all of these add nothing.

        Args:
            documents: As for :meth:`score`.
            x: As for :meth:`score`.

        Returns:
            Scores with u in the place of z, and of images no likelihood.

        Raises:
            UserError: As :meth:`score`.
        """
        packed, x = self._viewed(documents, x)
        none = normal_log_prob(x[:0])
        if not packed.tokens.numel():
            return Scores(z=x, u=x, log_prob=none, token_nll=none)
        u = self.shallow(x).z
        text = self.interleaving.text_alone(
            stream_inputs(packed, u, self.vision_features(u, x)), self.vlm
        )
        assert text is not None  # whoever names skips to text can do without them
        return Scores(z=u, u=u, log_prob=none, token_nll=self._token_nll(text, packed))

    def vision_features(
        self, u: Float[Tensor, "m n d"], x: Float[Tensor, "m n d"]
    ) -> Float[Tensor, "m n s"] | None:
        """Return what the vision-language model is shown of whole images, None for u."""
        vision_input = self.interleaving.vision_input
        if vision_input is None or vision_input.is_causal:
            return None
        return vision_input.features(u, x, self.latent, self.vlm)

    def pack(self, documents: Sequence[Document]) -> PackedBatch:
        """Pack what the interleaving models of documents, which of some may be nothing."""
        return self._pack(documents, [self.interleaving.view(document) for document in documents])

    def _viewed(
        self, documents: Sequence[Document], x: Float[Tensor, "m n d"]
    ) -> tuple[PackedBatch, Float[Tensor, "k n d"]]:
        """Return what the interleaving models of documents, and the latents of its images."""
        viewed = [self.interleaving.view(document) for document in documents]
        x = x[_kept_images(documents, viewed, len(x))]
        return self._pack(documents, viewed).to(x.device), x

    def _pack(self, documents: Sequence[Document], viewed: Sequence[Document]) -> PackedBatch:
        # A document that is empty itself is left to the packer to refuse.
        left = [v for d, v in zip(documents, viewed, strict=True) if v.segments or not d.segments]
        if documents and not left:
            return self.packer.nothing()
        if self.pack_length is None:
            return self.packer(left)
        return self.packer.fill(left, self.pack_length)

    def _token_nll(self, text: Tensor | None, packed: PackedBatch) -> Float[Tensor, " k"]:
        if text is None:
            weight = self.deep.head.weight
            return weight.new_zeros(0, dtype=at_least_float32(weight))
        supervised = packed.places(packed.targets != IGNORE)
        logits = self.interleaving.logits(text.flatten(0, 1)[supervised], self.vlm)
        logits = logits.to(at_least_float32(logits))
        return F.cross_entropy(logits, packed.targets.flatten()[supervised], reduction="none")


def _kept_images(
    documents: Sequence[Document], viewed: Sequence[Document], num_images: int
) -> list[int] | slice:
    """Return which images of documents their views hold: of each the first ones."""
    kept: list[int] = []
    count = 0
    for document, view in zip(documents, viewed, strict=True):
        kept += range(count, count + view.num_images)
        count += document.num_images
    if count != num_images:
        raise UserError(f"these documents hold {count} images, got the latents of {num_images}")
    return kept if len(kept) < count else slice(None)


def stream_inputs(
    packed: PackedBatch,
    u: Float[Tensor, "m n d"],
    vision: Float[Tensor, "m n s"] | None = None,
) -> StreamInputs:
    """Lay u, and what is seen, out at the image positions of packed sequences (causal)."""
    places = packed.places(packed.is_image)
    return StreamInputs(
        tokens=packed.tokens,
        is_image=packed.is_image,
        u=_laid_out(u, packed, places),
        index=packed.index,
        positions=packed.positions,
        mask=None if packed.document is None else packed.mask,
        blocks=packed.block_mask,
        vision=None if vision is None else _laid_out(vision, packed, places),
    )


def _laid_out(
    features: Float[Tensor, "m n c"], packed: PackedBatch, places: Int[Tensor, " k"]
) -> Float[Tensor, "b l c"]:
    dense = features.new_zeros(packed.tokens.numel(), features.shape[-1])
    dense[places] = features.flatten(0, 1)
    return dense.view(*packed.tokens.shape, -1)
