"""Second stage of a feature autoencoder: images from features."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from pretzel import rng
from pretzel.errors import UserError
from pretzel.latent.fae import FAENetwork
from pretzel.latent.fae.pixel_decoder import PixelDecoderFactory
from pretzel.latent.features.cache import FeatureCache
from pretzel.sequence.document import DocumentBatch
from pretzel.training.exporting_stage import ExportingStage
from pretzel.training.image_batch import images_of
from pretzel.training.image_losses import ImageLoss
from pretzel.training.image_quality import psnr
from pretzel.training.schedule import Schedule, with_schedule
from pretzel.typing import Float, Tensor


@final
class PixelDecoderTraining(ExportingStage):
    """Trains the pixel decoder of a feature autoencoder, whose other parts are frozen.

    At first from true features with Gaussian noise, then from those that the feature decoder makes
    of noised latents (arXiv 2512.07829, which does the second without noise on the latents).

    Logs ``train/loss``, and for validation images ``val/psnr`` (clean latents),
    ``val/psnr_noised`` (noise of ``max_noise``) and ``val/psnr_features`` (true features), in dB.

    Args:
        features: File that :class:`FeatureAutoencoderTraining` wrote.
        pixel_decoder: Makes the pixel decoder.
        losses: Losses of images, their weighted sum is the loss of the stage.
        optimizer: Optimizer of the pixel decoder.
        schedule: Learning-rate schedule over the steps of the run.
        feature_noise: Standard deviation of the noise on true features, which have variance 1.
        feature_share: Share of the steps that trains from true features.
        max_noise: Largest standard deviation of the noise on latents, one for each image, uniform
            from 0; latents have variance 1.
        seed: Seed of the noise.
        cache_mib: Memory for features of images seen before, in MiB; 0 encodes each time.
        export_to: Safetensors file written when training ends, for :class:`pretzel.latent.FAE`;
            none writes only Lightning's checkpoints.
        half_precision: Write weights as float16, at half the size.

    Raises:
        UserError: If there is no such file or no loss, a number is negative or a share above 1, or
            ``export_to`` cannot be written; when it is to be fitted, if the Trainer accumulates
            batches.
    """

    def __init__(
        self,
        features: str,
        pixel_decoder: PixelDecoderFactory,
        losses: Sequence[ImageLoss],
        optimizer: OptimizerCallable,
        schedule: Schedule,
        feature_noise: float,
        feature_share: float,
        max_noise: float,
        seed: int,
        cache_mib: int = 2048,
        export_to: str | None = None,
        half_precision: bool = False,
    ) -> None:
        super().__init__(export_to)
        self.half_precision = half_precision
        numbers = {"feature_noise": feature_noise, "max_noise": max_noise, "cache_mib": cache_mib}
        for name, value in numbers.items():
            if not 0 <= value < math.inf:
                raise UserError(f"{name} must be 0 or positive, got {value}")
        if not 0 <= feature_share <= 1:
            raise UserError(f"feature_share must be from 0 to 1, got {feature_share}")
        if not any(loss.start_step == 0 for loss in losses):
            raise UserError(
                "losses must name one loss or more that counts from step 0, got "
                f"{[type(loss).__name__ for loss in losses]}"
            )
        if not Path(features).is_file():
            raise UserError(
                "features must name the file of the first stage "
                f"(ablations/latents/fae_features.yaml), got {features}, which does not exist"
            )
        self.network = FAENetwork.load(Path(features)).requires_grad_(False).eval()
        self.network.set_pixel_decoder(pixel_decoder)
        self.losses = nn.ModuleList(losses)
        self._start_steps = [loss.start_step for loss in losses]
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.feature_noise = feature_noise
        self.feature_share = feature_share
        self.max_noise = max_noise
        self.seed = seed
        self._encode = FeatureCache(self.network.encoder, cache_mib)

    def metric_names(self) -> set[str]:
        """Return the names of losses and qualities."""
        losses = {f"train/{loss.name}" for loss in self.losses}
        return losses | {"train/loss", "val/psnr", "val/psnr_noised", "val/psnr_features"}

    def train(self, mode: bool = True) -> "PixelDecoderTraining":
        """Set the mode of the pixel decoder; all else stays in eval mode."""
        super().train(mode)
        self.network.eval()
        assert self.network.pixel_decoder is not None
        self.network.pixel_decoder.train(mode)
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer, with the schedule stepped each step."""
        parameters = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        return with_schedule(self.optimizer_factory(parameters), self.schedule, self.trainer)

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        """Return the loss of the global batch."""
        images = images_of(batch)
        features = self.network.standardise(self._encode(images))
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx
        generator = rng.stream(self.seed, "noise", self.global_rank, number)
        if self.global_step < self.feature_share * self.trainer.estimated_stepping_batches:
            noise = self.feature_noise * torch.randn(features.shape, generator=generator)
            features = features + noise.to(features)
        else:
            latents, _ = self.network.gaussian(features)
            strength = self.max_noise * torch.rand(len(images), 1, 1, generator=generator)
            noise = strength * torch.randn(latents.shape, generator=generator)
            features = self.network.feature_decoder(latents + noise.to(latents))
        decoded = self._decode(features)
        losses = zip(self.losses, self._start_steps, strict=True)
        begun = [loss for loss, start in losses if self.global_step >= start]
        parts = {loss.name: loss.weight * loss(decoded, images) for loss in begun}
        loss, _ = self.global_mean(torch.stack(list(parts.values())).sum(0))
        values = {f"train/{name}": part.detach().mean() for name, part in parts.items()}
        values["train/loss"] = loss.detach()
        self.log_dict(values, prog_bar=True, batch_size=len(images), sync_dist=True)
        return self.touching_all(loss)

    def _decode(self, features: Float[Tensor, "m n f"]) -> Float[Tensor, "m 3 height width"]:
        assert self.network.pixel_decoder is not None
        images: Tensor = self.network.pixel_decoder(features)
        return images

    def validation_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Log the quality of images decoded from clean and noised latents, and from features."""
        images = images_of(batch)
        features = self.network.standardise(self._encode(images))
        latents, _ = self.network.gaussian(features)
        generator = rng.stream(self.seed, "validation noise", batch_idx, self.global_rank)
        noise = self.max_noise * torch.randn(latents.shape, generator=generator).to(latents)
        values = {
            "val/psnr": psnr(self.network.decode(latents), images).mean(),
            "val/psnr_noised": psnr(self.network.decode(latents + noise), images).mean(),
            "val/psnr_features": psnr(self._decode(features), images).mean(),
        }
        self.log_dict(values, prog_bar=True, batch_size=len(images), sync_dist=True)

    def reconstruct(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> Float[Tensor, "m 3 height width"]:
        """Return images decoded from the clean latents of images."""
        return self.network.decode(self.network.encode(images))

    def export(self, path: Path) -> None:
        """Write the network for :class:`pretzel.latent.FAE`."""
        self.network.save(path, half_precision=self.half_precision)
