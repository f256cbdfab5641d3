"""Stage that trains an autoencoder: images from noised latents."""

import math
from pathlib import Path
from typing import final

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn import SyncBatchNorm

from pretzel import rng
from pretzel.errors import UserError
from pretzel.latent.autoencoder import ConvAutoencoder
from pretzel.sequence.document import DocumentBatch
from pretzel.training.exporting_stage import ExportingStage
from pretzel.training.image_batch import images_of
from pretzel.training.image_quality import psnr
from pretzel.training.schedule import Schedule, with_schedule
from pretzel.typing import Float, Tensor


@final
class AutoencoderTraining(ExportingStage):
    """Trains an autoencoder to give back images from noised latents.

    The decoder sees z + sigma * eps with sigma uniform in [0, max_noise], one for each image, so
    that it can decode samples of a flow that was trained with noise, and so that neighbouring
    latents mean similar images. The loss is the mean absolute plus the mean squared error: the
    first keeps edges and flat areas clean, the second colours right.

    Logs ``train/loss``, ``val/psnr`` (clean latents) and ``val/psnr_noised`` (noise of standard
    deviation ``max_noise``), both in dB, mean over images.

    Args:
        autoencoder: The autoencoder that trains.
        optimizer: Optimizer of all parameters.
        schedule: Learning-rate schedule over the steps of the run.
        max_noise: Largest standard deviation of the noise; latents have variance 1.
        seed: Seed of the noise.
        export_to: Safetensors file written when training ends, for
            :class:`pretzel.latent.Autoencoder`; none writes only Lightning's checkpoints.

    Raises:
        UserError: If ``max_noise`` is negative or ``export_to`` cannot be written; when it is to be
            fitted, if the Trainer accumulates batches, or several processes would each normalise
            latents by a batch of their own.
    """

    def __init__(
        self,
        autoencoder: ConvAutoencoder,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        max_noise: float,
        seed: int,
        export_to: str | None = None,
    ) -> None:
        super().__init__(export_to)
        if not 0 <= max_noise < math.inf:
            raise UserError(f"max_noise must be 0 or positive, got {max_noise}")
        self.autoencoder = autoencoder
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.max_noise = max_noise
        self.seed = seed

    def metric_names(self) -> set[str]:
        """Return the names of the loss and of the qualities."""
        return {"train/loss", "val/psnr", "val/psnr_noised"}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer, with the schedule stepped each step."""
        return with_schedule(self.optimizer_factory(self.parameters()), self.schedule, self.trainer)

    def on_fit_start(self) -> None:
        """Raise a UserError if latents would not be normalised over the global batch."""
        world = self.trainer.world_size
        if world > 1 and not isinstance(self.autoencoder.normalize, SyncBatchNorm):
            raise UserError(
                f"trainer.sync_batchnorm must be true with {world} processes, got false: the "
                "latents are normalised over the whole batch of a step"
            )

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        """Return the reconstruction loss of the global batch."""
        images = images_of(batch)
        maps = self.autoencoder.encode(images)
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx
        generator = rng.stream(self.seed, "noise", self.global_rank, number)
        # One strength for each image, up to the level that the flow will leave in its samples
        sigma = self.max_noise * torch.rand(len(maps), 1, 1, 1, generator=generator)
        noise = sigma * torch.randn(maps.shape, generator=generator)
        error = self.autoencoder.decode(maps + noise.to(maps)) - images
        loss, _ = self.global_mean((error.abs() + error.square()).mean(dim=(1, 2, 3)))
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(images), sync_dist=True)
        return loss

    def validation_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Log the quality of images decoded from clean and from noised latents."""
        images = images_of(batch)
        maps = self.autoencoder.encode(images)
        generator = rng.stream(self.seed, "validation noise", batch_idx, self.global_rank)
        noise = self.max_noise * torch.randn(maps.shape, generator=generator)
        clean = psnr(self.autoencoder.decode(maps), images).mean()
        noised = psnr(self.autoencoder.decode(maps + noise.to(maps)), images).mean()
        values = {"val/psnr": clean, "val/psnr_noised": noised}
        self.log_dict(values, prog_bar=True, batch_size=len(images), sync_dist=True)

    def reconstruct(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> Float[Tensor, "m 3 height width"]:
        """Return images decoded from the clean latents of images."""
        return self.autoencoder.decode(self.autoencoder.encode(images))

    def encodings(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> dict[str, Float[Tensor, "m n c"]]:
        """Return the latents of images in [-1, 1]."""
        return {"latents": self.autoencoder.encode(images).flatten(2).transpose(1, 2)}

    def export(self, path: Path) -> None:
        """Write the autoencoder to a safetensors file for :class:`pretzel.latent.Autoencoder`."""
        self.autoencoder.save(path)
