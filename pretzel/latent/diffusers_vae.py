"""Latents of a pretrained variational autoencoder, such as Stable Diffusion's."""

from functools import cached_property
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.files.weights import content_hash
from pretzel.latent.base import LatentSpace, check_noise
from pretzel.latent.pixels import patchify, unpatchify
from pretzel.typing import Float, Tensor


class DiffusersVAE(LatentSpace):
    """The mean latents of a diffusers ``AutoencoderKL``, scaled to unit variance; frozen.

    The weights are loaded with the first image, so that a configuration can be checked and counted
    without them. Needs the package diffusers (``pip install pretzel-starflow[vae]``).

    Args:
        name: Hub id or local folder, for example ``stabilityai/sd-vae-ft-mse``.
        image_size: Side of the square images, in pixels.
        latent_channels: Channels of its latents.
        downsampling: Pixels along a side for each latent.
        noise: Standard deviation of the training noise, latents scaled.
        patch_size: Side of a patch of latents that makes one position.
        scale: Factor on the latents; None for the one in the autoencoder's own configuration,
            0.18215 for Stable Diffusion's.

    Raises:
        UserError: If the sizes do not divide each other, or ``noise`` is negative.
    """

    def __init__(
        self,
        name: str,
        image_size: int,
        latent_channels: int = 4,
        downsampling: int = 8,
        noise: float = 0.3,
        patch_size: int = 1,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if min(downsampling, patch_size) < 1 or image_size % (downsampling * patch_size):
            raise UserError(
                f"image_size must be a multiple of downsampling * patch_size = "
                f"{downsampling} * {patch_size}, got {image_size}"
            )
        check_noise(noise)
        self.name = name
        self.image_size = image_size
        self.noise = noise
        self.patch_size = patch_size
        self.latent_channels = latent_channels
        self.scale = scale
        self.grid = (image_size // (downsampling * patch_size),) * 2
        self.channels = latent_channels * patch_size**2
        self._hash = ""

    @property
    def identity(self) -> str:
        """Settings and content hash of the weights, which it loads."""
        scale = self._scale(self._vae)
        return f"diffusers-vae:{self.image_size}/{self.patch_size}:{scale}:{self._hash}"

    def encode(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n d"]:
        """Return mean latents.

        Raises:
            UserError: If the images have another size, or the autoencoder cannot be loaded or
                has latents of another shape.
        """
        self.check_size(images)
        vae, scale = self._cast_to(images)
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean * scale
        side = self.grid[0] * self.patch_size
        expected = (self.latent_channels, side, side)
        if tuple(latents.shape[1:]) != expected:
            raise UserError(
                f"latent_channels and downsampling must be those of {self.name}, which gives "
                f"{tuple(latents.shape[1:])} instead of {expected}"
            )
        return patchify(latents, self.patch_size)

    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m 3 height width"]:
        """Return images."""
        vae, scale = self._cast_to(latents)
        with torch.no_grad():
            maps = unpatchify(latents, self.grid, self.patch_size)
            images: Tensor = vae.decode(maps / scale).sample
        return images

    @cached_property  # not a submodule: its weights belong to no checkpoint
    def _vae(self) -> Any:  # noqa: ANN401
        try:
            import diffusers
        except ImportError as error:
            raise UserError(
                "DiffusersVAE needs the package diffusers: pip install 'pretzel-starflow[vae]'"
            ) from error
        try:
            kind: Any = diffusers.AutoencoderKL
            vae = kind.from_pretrained(self.name, use_safetensors=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(
                "name must be a hub id that can be reached, or a local folder, of an "
                f"AutoencoderKL, got {self.name} ({str(error).splitlines()[0]})"
            ) from error
        self._hash = content_hash(vae.state_dict())  # before it is cast to another dtype
        return vae.eval().requires_grad_(False)

    def _cast_to(self, inputs: Tensor) -> tuple[Any, float]:
        """Return the autoencoder, on the device and in the dtype of its inputs, and the scale."""
        vae = self._vae.to(inputs)
        return vae, self._scale(vae)

    def _scale(self, vae: Any) -> float:  # noqa: ANN401
        return float(vae.config.scaling_factor if self.scale is None else self.scale)
