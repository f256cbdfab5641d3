"""Linear latents: principal components of image patches, whitened."""

import json
from pathlib import Path
from typing import final

import torch

from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.weights import exported_hash, read_exported, save_exported
from pretzel.latent.base import LatentSpace, check_noise
from pretzel.latent.pixels import patchify, unpatchify
from pretzel.typing import Float, Tensor

_METADATA_KEY = "pretzel.linear_latents"


@final
class LinearLatents(LatentSpace):
    """The first principal components of patches of pixels, each of variance 1.

    The baseline of every learned latent space: as many channels, and no network.

    Args:
        weights: File written by :class:`pretzel.training.LinearLatentsFit`
            (``ablations/latents/linear.yaml``).
        noise: Standard deviation of the training noise of the flow; latents have variance 1.

    Raises:
        UserError: If ``weights`` is missing or holds no linear latents, or ``noise`` is negative.
    """

    mean: Float[Tensor, " p"]
    components: Float[Tensor, "d p"]
    scales: Float[Tensor, " d"]

    def __init__(self, weights: str, noise: float) -> None:
        super().__init__()
        check_noise(noise)
        path = Path(weights)
        state, metadata = read_exported(path)
        try:
            settings = json.loads(metadata[_METADATA_KEY])
            self.image_size = int(settings["image_size"])
            self.patch_size = int(settings["patch_size"])
            device = torch.get_default_device()  # the meta device when a grid is only planned
            for name in ("mean", "components", "scales"):
                self.register_buffer(name, state[name].to(device))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"weights must name a file of linear latents, got {path}: {error}"
            ) from error
        self.noise = noise
        self.grid = (self.image_size // self.patch_size,) * 2
        self.channels = len(self.components)
        self._digest = exported_hash(path)[:16]

    @property
    def identity(self) -> str:
        """Name and content hash of the file."""
        return f"linear:{self._digest}"

    def encode(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n d"]:
        """Project patches on the components."""
        self.check_size(images)
        patches = patchify(images, self.patch_size)
        return (patches - self.mean) @ (self.components.T / self.scales)

    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m 3 height width"]:
        """Add up the components."""
        patches = latents @ (self.scales[:, None] * self.components) + self.mean
        return unpatchify(patches, self.grid, self.patch_size)


def principal_components(
    covariance: Float[Tensor, "p p"], channels: int
) -> tuple[Float[Tensor, "d p"], Float[Tensor, " d"]]:
    """Return the first eigenvectors of a covariance and the standard deviations along them.

    Raises:
        UserError: If one of them is zero: ``channels`` is too large.
    """
    variances, vectors = torch.linalg.eigh(covariance)
    variances, vectors = variances.flip(0)[:channels], vectors.flip(1)[:, :channels]
    constant = int((variances <= 1e-7 * variances[0]).sum())
    if constant:
        raise UserError(
            f"channels must be at most {channels - constant}, the components in which patches of "
            f"these images differ, got {channels}"
        )
    # The sign of a component is arbitrary: make its largest entry positive
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return (vectors * largest.sign()).T, variances.sqrt()


def save_linear(
    path: Path,
    *,
    mean: Float[Tensor, " p"],
    covariance: Float[Tensor, "p p"],
    channels: int,
    image_size: int,
    patch_size: int,
) -> None:
    """Write the first components of patches with this mean and covariance to one file.

    Raises:
        UserError: If patches differ in fewer components than ``channels``.
    """
    components, scales = principal_components(covariance, channels)
    state = {
        "mean": mean.float(),
        "components": components.float().contiguous(),
        "scales": scales.float(),
    }
    settings = json.dumps({"image_size": image_size, "patch_size": patch_size})
    with whole_file(path) as partial:
        save_exported(state, partial, {_METADATA_KEY: settings})
