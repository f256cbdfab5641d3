"""Latents of a pretrained variational autoencoder, such as Stable Diffusion's."""

from functools import cached_property
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.files.pretrained import check_complete, refused
from pretzel.files.weights import content_hash
from pretzel.latent.base import LatentSpace, check_noise
from pretzel.latent.pixels import patchify, unpatchify
from pretzel.typing import Float, Tensor


class DiffusersVAE(LatentSpace):
    """The mean latents of a diffusers ``AutoencoderKL``, normalised to unit variance; frozen.

    Mean and standard deviation of each channel are those of the autoencoder's own configuration
    (``latents_mean``, ``latents_std``); where it has none, its ``shift_factor`` is subtracted and
    its ``scaling_factor`` multiplied.

    The weights are loaded with the first image, so that a configuration can be checked and counted
    without them. Needs the package diffusers (``pip install pretzel-starflow[vae]``).

    Args:
        name: Hub id or local folder, for example ``stabilityai/sd-vae-ft-mse``.
        image_size: Side of the square images, in pixels.
        latent_channels: Channels of its latents.
        downsampling: Pixels along a side for each latent.
        noise: Standard deviation of the training noise, latents normalised.
        patch_size: Side of a patch of latents that makes one position.
        scale: The only thing done to the latents, a factor; None for the configuration's own
            statistics (0.18215 for Stable Diffusion).

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
        mean, std = (values.flatten().tolist() for values in self._statistics(self._vae))
        return f"diffusers-vae:{self.image_size}/{self.patch_size}:{mean}/{std}:{self._hash}"

    def encode(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n d"]:
        """Return mean latents.

        Raises:
            UserError: If the images have another size, or the autoencoder cannot be loaded or
                has latents of another shape.
        """
        self.check_size(images)
        vae, mean, std = self._cast_to(images)
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean
        side = self.grid[0] * self.patch_size
        expected = (self.latent_channels, side, side)
        if tuple(latents.shape[1:]) != expected:
            raise UserError(
                f"latent_channels and downsampling must be those of {self.name}, which gives "
                f"{tuple(latents.shape[1:])} instead of {expected}"
            )
        return patchify((latents - mean) / std, self.patch_size)

    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m 3 height width"]:
        """Return images."""
        vae, mean, std = self._cast_to(latents)
        with torch.no_grad():
            maps = unpatchify(latents, self.grid, self.patch_size)
            images: Tensor = vae.decode(maps * std + mean).sample
        return images

    @cached_property  # not a submodule: its weights belong to no checkpoint
    def _vae(self) -> Any:  # noqa: ANN401
        try:
            import diffusers
        except ImportError as error:
            raise UserError(
                "DiffusersVAE needs the package diffusers: pip install 'pretzel-starflow[vae]'"
            ) from error
        kind: Any = diffusers.AutoencoderKL
        with (
            refused(
                "name must be a hub id that can be reached, or a local folder, of an "
                f"AutoencoderKL, got {self.name}"
            ),
            torch.random.fork_rng(devices=[]),
        ):
            vae, info = kind.from_pretrained(
                self.name, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        check_complete(self.name, info["missing_keys"])
        self._hash = content_hash(vae.state_dict())  # before it is cast to another dtype
        return vae.eval().requires_grad_(False)

    def _cast_to(self, inputs: Tensor) -> tuple[Any, Tensor, Tensor]:
        """Return the autoencoder, on the device and in the dtype of its inputs, and statistics."""
        vae = self._vae.to(inputs)
        mean, std = self._statistics(vae)
        return vae, mean.to(inputs), std.to(inputs)

    def _statistics(self, vae: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Return mean and standard deviation of each channel, or of all, [c or 1, 1, 1]."""
        config = vae.config
        means, stds = config.get("latents_mean"), config.get("latents_std")
        if self.scale is not None:
            means, stds = [0.0], [1 / self.scale]
        elif means is None or stds is None:
            means, stds = [config.get("shift_factor") or 0.0], [1 / config.scaling_factor]
        mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (means, stds))
        if {len(mean), len(std)} - {1, self.latent_channels} or not bool((std > 0).all()):
            raise UserError(
                f"{self.name}: latents_mean and latents_std must have a value for each of "
                f"{self.latent_channels} channels, the second positive ones, got {means} and {stds}"
            )
        return mean, std
