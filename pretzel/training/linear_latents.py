"""Stage that measures the mean and the covariance of image patches, for linear latents."""

from pathlib import Path
from typing import final

import torch
from torch.optim import Optimizer

from pretzel.errors import UserError
from pretzel.latent.linear import principal_components, save_linear
from pretzel.latent.pixels import Pixels
from pretzel.sequence.document import DocumentBatch
from pretzel.training.exporting_stage import ExportingStage
from pretzel.training.image_batch import images_of
from pretzel.training.image_quality import psnr
from pretzel.typing import Float, Tensor


@final
class LinearLatentsFit(ExportingStage):
    """Measures patches of training images; nothing trains.

    Logs ``val/psnr`` in dB: what the components measured so far give back of validation images.

    Args:
        image_size: Side of the square images, in pixels.
        patch_size: Side of a patch, in pixels: one position of the latents.
        channels: Principal components that are kept, the first ones.
        export_to: Safetensors file written at the end, for :class:`pretzel.latent.LinearLatents`.

    Raises:
        UserError: If a size is not positive or does not fit, or ``export_to`` cannot be written.
    """

    total: Tensor
    products: Tensor
    count: Tensor

    def __init__(
        self, image_size: int, patch_size: int, channels: int, export_to: str | None = None
    ) -> None:
        super().__init__(export_to)
        self.automatic_optimization = False
        self.pixels = Pixels(image_size, patch_size, noise=0.0)
        size = self.pixels.channels
        if not 1 <= channels <= size:
            raise UserError(f"channels must be from 1 to {size}, those of a patch, got {channels}")
        self.channels = channels
        self.register_buffer("total", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("products", torch.zeros(size, size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def metric_names(self) -> set[str]:
        """Return the name of the quality."""
        return {"val/psnr"}

    def configure_optimizers(self) -> list[Optimizer]:
        """Return no optimizers."""
        return []

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Add the patches of the batch to the sums."""
        patches = self.pixels.encode(images_of(batch)).double().flatten(0, 1)
        self.total += patches.sum(dim=0)
        self.products += patches.T @ patches
        self.count += len(patches)

    def validation_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Log the quality of images made of their first components."""
        images = images_of(batch)
        mean, covariance = self._moments()
        components, _ = principal_components(covariance, self.channels)
        patches = self.pixels.encode(images).double() - mean
        made = self.pixels.decode((patches @ components.T @ components + mean).to(images))
        value = psnr(made, images).mean()
        self.log("val/psnr", value, prog_bar=True, batch_size=len(images), sync_dist=True)

    def _moments(self) -> tuple[Float[Tensor, " p"], Float[Tensor, "p p"]]:
        """Return mean and covariance of the patches so far."""
        mean = self.total / self.count
        return mean, self.products / self.count - torch.outer(mean, mean)

    def on_train_end(self) -> None:
        """Add up the sums of all processes."""
        for name in ("total", "products", "count"):
            both = self.trainer.strategy.reduce(getattr(self, name), reduce_op="sum")
            setattr(self, name, both)

    def export(self, path: Path) -> None:
        """Write the components for :class:`pretzel.latent.LinearLatents`."""
        mean, covariance = self._moments()
        save_linear(
            path,
            mean=mean,
            covariance=covariance,
            channels=self.channels,
            image_size=self.pixels.image_size,
            patch_size=self.pixels.patch_size,
        )
