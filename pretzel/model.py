"""The Pretzel (STARFlow2, arXiv 2605.08029): one flow and one language model over one sequence.

A document is a sequence of tokens and image positions. Two causal streams run over it, side by
side, and skip connections cross between them::

             text                               image
              |                                   |  encode, + noise (std sigma_n)
              |                                   x
              |                                   |  shallow flow f_S, of each image by itself
              | embed          adapter            |
              +<--------------------------------- u
              |                                   | P_in
       +------v------+                     +------v------+
       | frozen      |  y_vlm       W_vlm  | deep stream |
       | vision-     | ------------------> | (causal     |
       | language    |      P_txt (text)   | transformer)|
       | model (VLM) |                     |             |
       +------+------+       W_D       y_D +------+------+
              |  +<-------------------------------+
              v                                   v
      logits = LM(y_vlm + W_D y_D)      mu_n, sigma_n = head(y_D before position n)
      of the next token                 z_n = (u_n - mu_n) / sigma_n  ~  N(0, 1)

The likelihood of an image is exact, by the change of variables through both maps::

    log p(x) = log N(z; 0, 1) - sum_n log sigma_n + log |det du/dx|

The skips W_vlm and W_D start at zero: an untrained Pretzel is the VLM on text and a plain flow on
images. Which of the lines in the figure there are is the business of an
:class:`~pretzel.interleave.base.Interleaving`; the one drawn is
:class:`~pretzel.interleave.stacked.Stacked`.

Axes: m images of n positions with d channels; b rows of l positions; widths w of the deep stream
and h of the VLM; k supervised tokens.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F

from pretzel.errors import UserError
from pretzel.flow.block import BlockFactory, FlowStack
from pretzel.flow.deep import DeepFactory, DeepStream
from pretzel.flow.layer_split import Split, layer_costs
from pretzel.flow.permutations import Permutation, Raster
from pretzel.flow.precision import at_least_float32
from pretzel.flow.transforms import Transform
from pretzel.interleave.base import Interleaving, InterleavingFactory, StreamInputs
from pretzel.latent.base import LatentSpace
from pretzel.latent.generative_model import FrozenPart, GenerativeModel, Scores, normal_log_prob
from pretzel.sequence.document import Document
from pretzel.sequence.packed_batch import IGNORE, PackedBatch
from pretzel.sequence.packer import Packer
from pretzel.typing import Float, Int, Tensor
from pretzel.vlm.base import VLMStream


class Pretzel(GenerativeModel):
    """The unified model of text and images.

    Args:
        latent: Latent space of the images, with its noise; frozen.
        split: Layers of the shallow blocks and of the deep stream.
        permutations: Scan orders of the shallow blocks, repeated over them in turn.
        shallow: Makes a shallow block, given channels, grid, layers and permutation.
        deep: Makes the deep stream, given channels, grid and layers.
        vlm: Frozen vision-language model.
        interleaving: Makes the connections between the streams, given their sizes.
        pack_length: Length of a row into which several documents are packed in training and
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

        Documents may hold text and images in any order. Segments that the interleaving does not
        model have no likelihood.

        Args:
            documents: Documents in whose order the images come.
            x: Noised latents of all images, those that are not modelled included.

        Raises:
            UserError: If the documents do not hold ``m`` images, or one holds nothing.
        """
        packed, x = self._modelled(documents, x)
        if not packed.tokens.numel():
            none = normal_log_prob(x)
            return Scores(z=x, u=x, log_prob=none, token_nll=none)

        # u = f_S(x), with log |det du/dx|
        flowed = self.shallow(x)
        u = flowed.z

        # y_D and y_vlm + W_D y_D at every position
        inputs = stream_inputs(packed, u, self.vision_features(u, x))
        outputs = self.interleaving(inputs, self.vlm, self.deep)

        # mu_n, sigma_n from the state before position n: begin-of-image stands before the first
        before = outputs.deep.flatten(0, 1)[packed.places(packed.is_image) - 1]
        params = self.deep.params(before.view(*x.shape[:2], before.shape[-1]))

        # z = (u - mu) / sigma, with log |dz/du| = -log sigma
        z, logdet = self.deep.transform.forward(u, params)
        deep_logdet = logdet.sum(dim=(1, 2), dtype=at_least_float32(logdet))
        return Scores(
            z=z,
            u=u,
            log_prob=normal_log_prob(z) + deep_logdet + flowed.logdet,
            token_nll=self._token_nll(outputs.text, packed),
        )

    def score_text(self, documents: Sequence[Document], x: Float[Tensor, "m n d"]) -> Scores:
        """Return the likelihoods of supervised tokens alone, without running the deep stream.

        They equal those of :meth:`score`, to the last bit, where the interleaving has
        ``skips_to_text`` and all of these are zero. Arguments and errors are those of
        :meth:`score`; u stands in the place of z, and likelihoods of images are left out.
        """
        packed, x = self._modelled(documents, x)
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
        """Return the features that the VLM is shown in the place of u; None if u or no image."""
        vision_input = self.interleaving.vision_input
        if vision_input is None or vision_input.is_causal:
            return None
        return vision_input.features(u, x, self.latent, self.vlm)

    def view(self, document: Document) -> Document:
        """Return the part of a document that the interleaving models."""
        return self.interleaving.view(document)

    def pack(self, documents: Sequence[Document]) -> PackedBatch:
        """Pack the parts of documents that the interleaving models."""
        return self._pack(documents, [self.view(document) for document in documents])

    def _modelled(
        self, documents: Sequence[Document], x: Float[Tensor, "m n d"]
    ) -> tuple[PackedBatch, Float[Tensor, "k n d"]]:
        """Return the parts of documents that the interleaving models, and the latents in them."""
        views = [self.view(document) for document in documents]
        x = x[_kept_images(documents, views, len(x))]
        return self._pack(documents, views).to(x.device), x

    def _pack(self, documents: Sequence[Document], views: Sequence[Document]) -> PackedBatch:
        pairs = zip(documents, views, strict=True)
        # A document that is empty itself is left to the packer to refuse.
        nonempty = [view for document, view in pairs if view.segments or not document.segments]
        if documents and not nonempty:
            return self.packer.nothing()
        if self.pack_length is None:
            return self.packer(nonempty)
        return self.packer.fill(nonempty, self.pack_length)

    def _token_nll(self, text: Tensor | None, packed: PackedBatch) -> Float[Tensor, " k"]:
        if text is None:
            weight = self.deep.head.weight
            return weight.new_zeros(0, dtype=at_least_float32(weight))
        supervised = packed.places(packed.targets != IGNORE)
        logits = self.interleaving.logits(text.flatten(0, 1)[supervised], self.vlm)
        logits = logits.to(at_least_float32(logits))
        return F.cross_entropy(logits, packed.targets.flatten()[supervised], reduction="none")


def stream_inputs(
    packed: PackedBatch,
    u: Float[Tensor, "m n d"],
    vision: Float[Tensor, "m n s"] | None = None,
) -> StreamInputs:
    """Return packed sequences as the inputs of both streams, u of images at their positions.

    ``vision`` are the features of images that the VLM is shown in the place of u.
    """
    places = packed.places(packed.is_image)
    return StreamInputs(
        tokens=packed.tokens,
        is_image=packed.is_image,
        u=_at_places(u, packed, places),
        index=packed.index,
        positions=packed.positions,
        mask=None if packed.document is None else packed.mask,
        blocks=packed.block_mask,
        vision=None if vision is None else _at_places(vision, packed, places),
    )


def _at_places(
    features: Float[Tensor, "m n c"], packed: PackedBatch, places: Int[Tensor, " p"]
) -> Float[Tensor, "b l c"]:
    """Return features at the given places of packed sequences, zeros elsewhere."""
    rows = features.new_zeros(packed.tokens.numel(), features.shape[-1])
    rows[places] = features.flatten(0, 1)
    return rows.view(*packed.tokens.shape, -1)


def _kept_images(
    documents: Sequence[Document], views: Sequence[Document], num_images: int
) -> list[int] | slice:
    """Return which images of documents their views hold: of each document the first ones."""
    kept: list[int] = []
    count = 0
    for document, view in zip(documents, views, strict=True):
        kept += range(count, count + view.num_images)
        count += document.num_images
    if count != num_images:
        raise UserError(f"these documents hold {count} images, got the latents of {num_images}")
    # All images as a slice: indexing by a list would copy the latents.
    return kept if len(kept) < count else slice(None)
