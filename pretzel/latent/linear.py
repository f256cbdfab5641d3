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
        shape: Image size, patch size and channels that the file must have; None takes its own.
            Without ``weights`` they are unfitted, to be checked and counted, and no model is
            trained on them.

    Raises:
        UserError: If ``weights`` is missing, holds no linear latents or those of another shape,
            neither of the two is given, or ``noise`` is negative.
    """

    trained_by = "ablations/latents/linear.yaml"

    mean: Float[Tensor, " p"]
    components: Float[Tensor, "d p"]
    scales: Float[Tensor, " d"]

    def __init__(
        self, weights: str | None, noise: float, shape: tuple[int, int, int] | None = None
    ) -> None:
        super().__init__()
        check_noise(noise)
        if weights is not None:
            state, found = _read(Path(weights))
            if shape not in (None, found):
                raise UserError(f"shape must be that of {weights}, {found}, got {shape}")
            self._digest = exported_hash(Path(weights))[:16]
        elif shape is not None:
            found, width = shape, 3 * shape[1] ** 2
            sizes = {"mean": (width,), "components": (shape[2], width), "scales": (shape[2],)}
            state = {name: torch.zeros(size) for name, size in sizes.items()}
            self._digest = ""
        else:
            raise UserError("weights must name a file of linear latents where no shape is given")
        for name, tensor in state.items():
            self.register_buffer(name, tensor)
        self.image_size, self.patch_size, self.channels = found
        self.noise = noise
        self.grid = (self.image_size // self.patch_size,) * 2

    @property
    def identity(self) -> str:
        """Name and content hash of the file.

        Raises:
            UserError: If they are unfitted: nothing may be trained on them, or stored of them.
        """
        if not self._digest:
            raise UserError(
                "weights of the linear latents must be given: without them they are unfitted, to "
                "be counted alone; LinearLatentsFit writes them"
            )
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


def _read(path: Path) -> tuple[dict[str, Tensor], tuple[int, int, int]]:
    """Return mean, components and scales of a file, and its shape."""
    state, metadata = read_exported(path)
    if _METADATA_KEY not in metadata:
        raise UserError(f"weights must name a file of linear latents, got {path}, which holds none")
    try:
        settings = json.loads(metadata[_METADATA_KEY])
        device = torch.get_default_device()  # the meta device when a grid is only planned
        tensors = {name: state[name].to(device) for name in ("mean", "components", "scales")}
        sizes = int(settings["image_size"]), int(settings["patch_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"weights must name a file of linear latents, got {path}: {error}"
        ) from error
    return tensors, (*sizes, len(tensors["components"]))


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
    if constant == channels:
        raise UserError("images must differ, got patches that are all the same")
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
