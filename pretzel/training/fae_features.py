"""First stage of a feature autoencoder: features from few noised channels."""

import math
from pathlib import Path
from typing import final

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn import SyncBatchNorm

from pretzel import rng
from pretzel.errors import UserError
from pretzel.latent.fae import FAENetwork
from pretzel.latent.features.cache import FeatureCache
from pretzel.sequence.document import DocumentBatch
from pretzel.training.exporting_stage import ExportingStage
from pretzel.training.image_batch import images_of
from pretzel.training.schedule import Schedule, with_schedule
from pretzel.typing import Float, Tensor


@final
class FeatureAutoencoderTraining(ExportingStage):
    """Trains bottleneck and feature decoder on the features of a frozen encoder.

    The loss is the squared error of standardised features, a weighted mean over stages, plus beta
    times the divergence of the latents' Gaussian from the standard normal (arXiv 2512.07829).
    The decoder sees z = mean + sqrt(variance + s^2) * eps with s uniform in [0, max_noise], one for
    each image: it shall decode samples of a flow that was trained with noise.

    Logs ``train/loss``, ``train/kl`` (nats a channel), and for validation images ``val/r2`` (share
    of the features' variance that comes back, plain mean over stages), ``val/r2_noised`` (noise of
    ``max_noise``), ``val/cosine`` (of standardised features), ``val/latent_std_min`` and
    ``val/latent_std_max`` (over channels).

    Args:
        network: The autoencoder; its pixel decoder, if any, does not train.
        optimizer: Optimizer of bottleneck and feature decoder.
        schedule: Learning-rate schedule over the steps of the run.
        beta: Weight of the divergence.
        max_noise: Largest standard deviation of the noise; latents have variance 1.
        seed: Seed of the noise.
        stage_weights: Weight of each stage of the encoder in the loss; equal ones by default.
        cache_mib: Memory for features of images seen before, in MiB; 0 encodes each time.
        export_to: Safetensors file written when training ends; none writes only Lightning's
            checkpoints.

    Raises:
        UserError: If ``beta``, ``max_noise`` or ``cache_mib`` is negative, or ``export_to`` cannot
            be written; when it is to be fitted, if the Trainer accumulates batches, or several
            processes would each normalise latents by a batch of their own.
    """

    def __init__(
        self,
        network: FAENetwork,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        beta: float,
        max_noise: float,
        seed: int,
        stage_weights: list[float] | None = None,
        cache_mib: int = 2048,
        export_to: str | None = None,
    ) -> None:
        super().__init__(export_to)
        for name, value in (("beta", beta), ("max_noise", max_noise), ("cache_mib", cache_mib)):
            if not 0 <= value < math.inf:
                raise UserError(f"{name} must be 0 or positive, got {value}")
        stages = network.encoder.stages
        weights = stage_weights or [1.0] * len(stages)
        if len(weights) != len(stages) or not all(0 < w < math.inf for w in weights):
            raise UserError(
                f"stage_weights must be {len(stages)} positive numbers, one for each stage of the "
                f"encoder, got {stage_weights}"
            )
        self.stage_shares = [weight / sum(weights) for weight in weights]
        self.network = network
        if network.pixel_decoder is not None:
            network.pixel_decoder.requires_grad_(False)
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.beta = beta
        self.max_noise = max_noise
        self.seed = seed
        self._encode = FeatureCache(network.encoder, cache_mib)

    def metric_names(self) -> set[str]:
        """Return the names of losses and qualities."""
        names = ("r2", "r2_noised", "cosine", "latent_std_min", "latent_std_max")
        return {"train/loss", "train/kl", *(f"val/{name}" for name in names)}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer, with the schedule stepped each step."""
        parameters = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        return with_schedule(self.optimizer_factory(parameters), self.schedule, self.trainer)

    def on_fit_start(self) -> None:
        """Raise a UserError if latents would not be normalised over the global batch."""
        world = self.trainer.world_size
        if world > 1 and not isinstance(self.network.normalize, SyncBatchNorm):
            raise UserError(
                f"trainer.sync_batchnorm must be true with {world} processes, got false: the "
                "latents are normalised over the whole batch of a step"
            )

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        """Return the loss of the global batch."""
        images = images_of(batch)
        network = self.network
        features = network.standardise(self._encode(images))
        mean, log_variance = network.gaussian(features)
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx
        generator = rng.stream(self.seed, "noise", self.global_rank, number)
        strength = self.max_noise * torch.rand(len(mean), 1, 1, generator=generator)
        eps = torch.randn(mean.shape, generator=generator).to(mean)
        variance = strength.to(mean).square()
        kl = mean.new_zeros(len(mean))
        if log_variance is not None and self.beta:
            variance = variance + log_variance.exp()
            kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).mean(dim=(1, 2))
        decoded = network.feature_decoder(mean + variance.sqrt() * eps)
        stages = zip(self.stage_shares, self._errors(decoded, features), strict=True)
        error = torch.stack([share * stage for share, stage in stages]).sum(0)
        loss, _ = self.global_mean(error + self.beta * kl)
        values = {"train/loss": loss.detach(), "train/kl": kl.detach().mean()}
        self.log_dict(values, prog_bar=True, batch_size=len(images), sync_dist=True)
        return self.touching_all(loss)

    def _errors(
        self, decoded: Float[Tensor, "m n f"], features: Float[Tensor, "m n f"]
    ) -> list[Float[Tensor, " m"]]:
        """Return the mean squared error of each image, by stage."""
        error = (decoded - features).square()
        stages = torch.split(error, list(self.network.encoder.stages), dim=-1)
        return [stage.mean(dim=(1, 2)) for stage in stages]

    def validation_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Log how much of the features comes back."""
        images = images_of(batch)
        network = self.network
        features = network.standardise(self._encode(images))
        mean, _ = network.gaussian(features)
        generator = rng.stream(self.seed, "validation noise", batch_idx, self.global_rank)
        noise = self.max_noise * torch.randn(mean.shape, generator=generator).to(mean)
        decoded = network.feature_decoder(mean)
        noised = network.feature_decoder(mean + noise)
        # Standardised features have variance 1 over training data
        spread = mean.flatten(0, 1).std(dim=0)
        values = {
            "val/r2": 1 - torch.stack(self._errors(decoded, features)).mean(),
            "val/r2_noised": 1 - torch.stack(self._errors(noised, features)).mean(),
            "val/cosine": torch.cosine_similarity(decoded, features, dim=-1).mean(),
            "val/latent_std_min": spread.min(),
            "val/latent_std_max": spread.max(),
        }
        self.log_dict(values, prog_bar=True, batch_size=len(images), sync_dist=True)

    def encodings(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> dict[str, Float[Tensor, "m n c"]]:
        """Return latents and features of images in [-1, 1]."""
        features = self.network.standardise(self._encode(images))
        return {"latents": self.network.gaussian(features)[0], "features": features}

    def export(self, path: Path) -> None:
        """Write the network for the second stage."""
        self.network.save(path)
