"""Pretzel: shallow flow, frozen vision-language model and deep stream, joined by an interleaving.

x = encode(image) + noise;  u = f_S(x);  z_n = T(u_n; state before n);  text from y_vlm + W_D y_D.
(arXiv 2605.08029)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.block import BlockFactory, FlowStack
from pretzel.flow.deep import DeepFactory, DeepStream
from pretzel.flow.permutations import Permutation
from pretzel.flow.split import Split
from pretzel.interleave.base import Interleaving, InterleavingFactory, StreamInputs
from pretzel.latent.base import LatentSpace
from pretzel.packing import IGNORE, PackedBatch, Packer
from pretzel.rng import stream
from pretzel.sequence import Document, DocumentBatch
from pretzel.typing import Float, Tensor
from pretzel.vlm.base import VLMStream

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class ImageLikelihood:
    """Exact log-likelihood of noised latents.

    Attributes:
        log_prob: Natural logarithm of the density of each image, all constants included.
        dims: Dimensions of one image.
        noise_floor: Entropy of the added noise in nats per dimension: no model of the noised data
            can have a mean negative log-likelihood per dimension below it.
        unit: Space in which it is a density, for example ``Pixels 32 px, noise 0.05``.
    """

    log_prob: Float[Tensor, " m"]
    dims: int
    noise_floor: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class PretzelOutput:
    """Everything the losses need.

    Attributes:
        z: Noise that each image maps to, in raster order.
        u: Output of the shallow flow.
        log_prob: Log-density of each noised latent, in nats.
        token_nll: Negative log-likelihood of every supervised token, in nats.
    """

    z: Float[Tensor, "m n d"]
    u: Float[Tensor, "m n d"]
    log_prob: Float[Tensor, " m"]
    token_nll: Float[Tensor, " k"]


class Pretzel(nn.Module):
    """The unified model.

    Args:
        latent: Space in which images are modelled, with its noise; frozen.
        split: Layers of the shallow blocks and of the deep stream.
        permutations: Scan orders of the shallow blocks, repeated over them in turn.
        shallow: Shallow block; the model gives channels, grid, layers and permutation.
        deep: Deep stream; the model gives channels, grid and layers.
        vlm: Frozen vision-language model.
        interleaving: Who feeds whom; the model gives the sizes of the streams.

    Raises:
        UserError: If there are shallow blocks but no permutations.
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
    ) -> None:
        super().__init__()
        layers = split.layers()
        if layers.shallow and not permutations:
            raise UserError("permutations must name at least one scan order, got an empty list")
        channels, grid = latent.channels, latent.grid
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
        self.interleaving.start_from(vlm)
        self.packer = Packer(vlm.encode_text, vlm.special, grid)

    @property
    def frozen(self) -> dict[str, nn.Module]:
        """The parts that never train and are left out of checkpoints, by name."""
        return {"vlm": self.vlm, "latent": self.latent}

    def encode(
        self, images: Float[Tensor, "m 3 height width"], noise: Float[Tensor, "m n d"]
    ) -> Float[Tensor, "m n d"]:
        """Return the latents of images with Gaussian noise of std sigma_n added."""
        with torch.no_grad():
            return self.latent.encode(images) + self.latent.noise * noise

    def noise(self, num_images: int, *key: int | str) -> Float[Tensor, "m n d"]:
        """Return the standard normal noise of a stream, on the device of the model."""
        shape = (num_images, self.latent.num_positions, self.latent.channels)
        drawn = torch.randn(shape, generator=stream(*key))
        return drawn.to(self.deep.head.weight)

    def sample_noise(self, keys: Sequence[str], *purpose: int | str) -> Float[Tensor, "m n d"]:
        """Return noise keyed by sample, the same in every batch the sample is part of."""
        rows = [self.noise(1, *purpose, key) for key in keys]
        return torch.cat(rows) if rows else self.noise(0, *purpose)

    def forward(self, batch: DocumentBatch, noise: Float[Tensor, "m n d"]) -> PretzelOutput:
        """Return the likelihoods of all images and of all supervised tokens.

        Args:
            batch: Documents with their images.
            noise: Standard normal noise for the latents.

        Raises:
            UserError: If the documents do not hold as many images as the batch.
        """
        return self.score(batch.documents, self.encode(batch.images, noise))

    def score(self, documents: Sequence[Document], x: Float[Tensor, "m n d"]) -> PretzelOutput:
        """Return the likelihoods of noised latents and of supervised tokens.

        Args:
            documents: Documents in whose order the images come.
            x: Noised latents of all images.

        Raises:
            UserError: If the documents, as the interleaving views them, do not hold ``m`` images.
        """
        packed = self.pack(documents).to(x.device)
        num_images = int(packed.is_image.sum()) // self.latent.num_positions
        if num_images != len(x):
            raise UserError(
                f"{type(self.interleaving).__name__} models {num_images} images of these "
                f"documents, got {len(x)}"
            )
        flowed = self.shallow(x)
        streams = self.interleaving(stream_inputs(packed, flowed.z), self.vlm, self.deep)

        # The state before an image position gives its parameters; no image starts a row.
        before = streams.deep[:, :-1][packed.is_image[:, 1:]]
        params = self.deep.params(before.view(*x.shape[:2], before.shape[-1]))
        z, logdet = self.deep.transform.forward(flowed.z, params)
        normal = -0.5 * (z.square() + LOG_2PI).sum(dim=(1, 2))
        return PretzelOutput(
            z=z,
            u=flowed.z,
            log_prob=normal + logdet.sum(dim=(1, 2)) + flowed.logdet,
            token_nll=self._token_nll(streams.text, packed),
        )

    def pack(self, documents: Sequence[Document]) -> PackedBatch:
        """Pack what the interleaving models of documents."""
        return self.packer([self.interleaving.view(document) for document in documents])

    def _token_nll(self, text: Tensor | None, packed: PackedBatch) -> Float[Tensor, " k"]:
        if text is None:
            return self.deep.head.weight.new_zeros(0)
        supervised = packed.targets != IGNORE
        logits = self.vlm.logits(text[supervised])
        return F.cross_entropy(logits, packed.targets[supervised], reduction="none")

    def log_prob(self, batch: DocumentBatch, noise: Float[Tensor, "m n d"]) -> ImageLikelihood:
        """Return the exact log-likelihood of the noised images given what stands before them."""
        sigma = self.latent.noise
        floor = 0.5 * (LOG_2PI + 1) + math.log(sigma) if sigma > 0 else -math.inf
        return ImageLikelihood(
            log_prob=self(batch, noise).log_prob,
            dims=self.latent.dims,
            noise_floor=floor,
            unit=(
                f"{type(self.latent).__name__} {self.latent.image_size} px, "
                f"{self.latent.dims} dims, noise {sigma}"
            ),
        )


def stream_inputs(packed: PackedBatch, u: Float[Tensor, "m n d"]) -> StreamInputs:
    """Lay u out at the image positions of packed sequences (right-padded, causal)."""
    dense = u.new_zeros(*packed.tokens.shape, u.shape[-1])
    dense[packed.is_image] = u.flatten(0, 1)
    return StreamInputs(
        tokens=packed.tokens,
        is_image=packed.is_image,
        u=dense,
        index=packed.index,
        positions=packed.positions,
    )
