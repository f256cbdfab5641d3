"""Images beside what an autoencoder makes of them, and how near they are."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from typing_extensions import override

from callbacks.evaluation import Evaluation, check_counts
from callbacks.generation_metric import ReferenceMetric
from callbacks.image_check import ImageCheck
from callbacks.protocols import Split, evaluation_samples, images_identity, lacks
from callbacks.reporting import Stage, log_values, logged_names, show_sheet
from pretzel.errors import NothingToMeasure
from pretzel.media import Pictures
from pretzel.media.sheet import sheet

_PREFIX = "reconstruction_"


@runtime_checkable
class Reconstructor(Protocol):
    """A module that encodes images and decodes them again."""

    @property
    def device(self) -> torch.device:
        """Where the module computes."""

    def reconstruct(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> Float[Tensor, "m 3 height width"]:
        """Return what comes back of images in [-1, 1]."""


class Reconstructions(Evaluation):
    """Show images beside what comes back of them, and measure how near that is.

    Logs ``<stage>/reconstruction_psnr`` (dB), ``reconstruction_ssim`` and ``reconstruction_n``,
    means over images, pixels clipped to [-1, 1], and what the metrics say, under
    ``reconstruction_<name>``: ``callbacks.FID`` gives the rFID of its extractor. Writes
    ``<log_dir>/reconstructions/step-00001000.png``, every image to the left of its reconstruction,
    and the same to TensorBoard. Rank zero alone measures. What the metrics keep of the real images
    is shared with other evaluations, as by :class:`callbacks.Generation`.

    Args:
        num_images: Images that are measured, the first ones; None for all.
        num_shown: Images that are shown.
        columns: Pairs in a row.
        metrics: Metrics that compare sets of images.
        batch_size: Images reconstructed at a time.
        every_n_validations: Measure at every n-th validation of a fit; tests always do.

    Raises:
        UserError: If a number is below 1, module or datamodule lack what is needed, or what comes
            back is NaN.
    """

    def __init__(
        self,
        num_images: int | None = None,
        num_shown: int = 16,
        columns: int = 4,
        metrics: list[ReferenceMetric] | None = None,
        batch_size: int = 64,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(
            self,
            num_images=num_images,
            num_shown=num_shown,
            columns=columns,
            batch_size=batch_size,
        )
        self.num_images = num_images
        self.num_shown = num_shown
        self.columns = columns
        self.metrics = metrics or []
        self.batch_size = batch_size
        self.facts: dict[str, dict[str, Any]] = {}

    def metric_names(self) -> set[str] | None:
        """Return the names of all measures; None if a metric's are unknown."""
        known = {"psnr", "ssim", "n"}
        for metric in self.metrics:
            if (own := metric.names()) is None:
                return None
            known |= own
        return logged_names(*(f"{_PREFIX}{name}" for name in known))

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        if not isinstance(pl_module, Reconstructor):
            raise lacks("Reconstructions", "a module with reconstruct(images)", pl_module)
        if not any(True for _ in evaluation_samples(trainer, split, "Reconstructions")):
            raise NothingToMeasure(f"there are no {split} samples")
        if trainer.is_global_zero:
            for metric in self.metrics:
                metric.prepare(pl_module.device)

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        assert isinstance(pl_module, Reconstructor)
        folder = trainer.log_dir  # asks all ranks
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            for metric in self.metrics:
                metric.reset()
                metric.reset_real()
            which = "" if self.num_images is None else f" first {self.num_images}"
            identity = (known := images_identity(trainer, stage)) and known + which
            new = [m for m in self.metrics if not (identity and m.load_real(identity))]
            check = ImageCheck(
                f"Reconstructions: at step {trainer.global_step}", "how near they are"
            )
            psnr: list[Tensor] = []
            ssim: list[Tensor] = []
            shown: list[Tensor] = []
            for images in self._batches(trainer, stage):
                real = images.to(pl_module.device)
                with torch.no_grad():
                    made = pl_module.reconstruct(real).clamp(-1, 1)
                check.take_in(made, check.not_finite(made))
                error = (made - real).square().mean(dim=(1, 2, 3))
                psnr.append(10 * torch.log10(4 / error).cpu())  # the peak is 2, from -1 to 1
                ssim.append(_ssim(made, real).cpu())
                for metric in new:
                    metric.update_real(real)
                for metric in self.metrics:
                    metric.update(made, [""] * len(made))
                if sum(map(len, shown)) < 2 * self.num_shown:
                    shown.append(torch.stack([real, made], dim=1).flatten(0, 1).cpu())
            kept = torch.cat(shown)[: 2 * self.num_shown]
            labels = ["image", "reconstruction"] * (len(kept) // 2)
            picture = sheet(Pictures(kept.shape[-1]).outputs(kept), labels, 2 * self.columns)
            show_sheet(trainer, folder, stage, "reconstructions", picture)
            found = {"psnr": float(torch.cat(psnr).mean()), "ssim": float(torch.cat(ssim).mean())}
            found["n"] = float(sum(map(len, psnr)))
            for metric in self.metrics:
                if identity and metric in new:
                    metric.save_real(identity)
                try:
                    found |= metric.compute()
                except NothingToMeasure as nothing:
                    self.not_measured[type(metric).__name__] = str(nothing)
                    rank_zero_warn(f"Reconstructions: {nothing}")
            values = {f"{_PREFIX}{name}": value for name, value in found.items()}
            of_metrics = {name: own for m in self.metrics for name, own in m.facts().items()}
            for name in found.keys() & {"psnr", "ssim", *of_metrics}:
                fact = {"n": int(found["n"]), **of_metrics.get(name, {})}
                self.facts[f"{stage}/{_PREFIX}{name}"] = fact
        log_values(pl_module, stage, trainer.strategy.broadcast(values))

    def _batches(
        self, trainer: Trainer, stage: Stage
    ) -> Iterator[Float[Tensor, "m 3 height width"]]:
        samples = islice(evaluation_samples(trainer, stage, "Reconstructions"), self.num_images)
        while batch := list(islice(samples, self.batch_size)):
            yield torch.stack([sample.image for sample in batch])


def _ssim(
    made: Float[Tensor, "m 3 height width"], real: Float[Tensor, "m 3 height width"]
) -> Float[Tensor, " m"]:
    value = structural_similarity_index_measure(
        made, real, reduction="none", data_range=(-1.0, 1.0)
    )
    assert isinstance(value, Tensor)
    return value
