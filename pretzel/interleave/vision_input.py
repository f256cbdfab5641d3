"""Vision input: the features that the vision-language model receives at image positions."""

from abc import ABC, abstractmethod

import torch.nn.functional as F

from pretzel.errors import UserError
from pretzel.flow.precision import at_least_float32
from pretzel.latent.base import LatentSpace
from pretzel.typing import Float, Tensor
from pretzel.vlm.base import VLMStream

Latents = Float[Tensor, "m n d"]
"""Of whole images, in raster order."""


class VisionInput(ABC):
    """Features of an image that the vision-language model receives.

    Attributes:
        is_causal: Whether the features of position n are known as soon as u_n is. If not, skips
            from the vision-language model are closed at the positions of the image being modelled,
            which enters it once it is complete.
    """

    is_causal: bool

    def width(self, channels: int, hidden_size: int) -> int:
        """Return the width of the features, by default that of latents.

        Args:
            channels: Channels D of the latents and of u.
            hidden_size: Hidden size of the vision-language model.
        """
        return channels

    def check(self, latent: LatentSpace, vlm: VLMStream) -> None:
        """Refuse a latent space or a model that it does not work with (once, at construction)."""
        return

    @abstractmethod
    def features(
        self, u: Latents, x: Latents, latent: LatentSpace, vlm: VLMStream
    ) -> Float[Tensor, "m n s"]:
        """Return the features of whole images.

        Args:
            u: Output of the shallow flow.
            x: Noised latents.
            latent: Their space.
            vlm: The vision-language model.
        """


class FlowInput(VisionInput):
    """u, the shallow flow's output, position by position (STARFlow2)."""

    is_causal = True

    def features(self, u: Latents, x: Latents, latent: LatentSpace, vlm: VLMStream) -> Latents:
        """Return u."""
        return u


class LatentInput(VisionInput):
    """x, the noised latents: each depends on all of u."""

    is_causal = False

    def features(self, u: Latents, x: Latents, latent: LatentSpace, vlm: VLMStream) -> Latents:
        """Return x."""
        return x


class TowerInput(VisionInput):
    """Features of the vision-language model's own tower over the decoded latents.

    Features on another grid than the latents' are resampled to it bilinearly.
    """

    is_causal = False

    def width(self, channels: int, hidden_size: int) -> int:
        """Return the hidden size: a tower ends in the embedding space."""
        return hidden_size

    def check(self, latent: LatentSpace, vlm: VLMStream) -> None:
        """Refuse a model without a tower.

        Raises:
            UserError: If there is no tower, or the latent grid is not two-dimensional.
        """
        if not vlm.has_tower:
            raise UserError(
                f"vision_input TowerInput needs a VLM with a tower, got {type(vlm).__name__}"
            )
        if len(latent.grid) != 2:
            raise UserError(
                f"vision_input TowerInput needs a latent grid of 2 axes, got {latent.grid}"
            )

    def features(
        self, u: Latents, x: Latents, latent: LatentSpace, vlm: VLMStream
    ) -> Float[Tensor, "m n h"]:
        """Return the tower's features of decode(x), without a gradient to x."""
        if not len(x):
            return x.new_zeros(0, x.shape[1], vlm.hidden_size)
        features, grid = vlm.encode_images(latent.decode(x.detach()))
        if grid == latent.grid:
            return features
        maps = features.mT.reshape(len(features), -1, *grid)
        wide = maps.to(at_least_float32(maps))  # not every device resizes shorter types
        maps = F.interpolate(wide, size=latent.grid, mode="bilinear", antialias=True).to(features)
        return maps.flatten(2).mT
