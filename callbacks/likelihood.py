"""Exact likelihood of the evaluation images, in bits per dimension."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from callbacks.evaluation import BatchEvaluation
from callbacks.protocols import HasLikelihood, HasPixelLikelihood, Likelihoods, lacks
from callbacks.reporting import Stage, gather, log_values, logged_names, means
from pretzel.ablation.protocols import SampleResult
from pretzel.errors import UserError
from pretzel.rng import stream
from pretzel.sequence.document import DocumentBatch

PIXEL_LEVELS = 256
"""Levels of an 8-bit pixel."""


class Likelihood(BatchEvaluation):
    r"""Measure how many bits a dimension costs beyond the noise that was put into it.

    Logs ``<stage>/nll_excess_bits_per_dim``, the mean over images of
    ``(-log p(x + noise) / dims - H(noise)) / ln 2``, where ``H`` is the differential entropy of
    the added noise in nats per dimension: no model can reach below zero. Values of different
    latent spaces or noise levels must not be compared. Without noise there is no floor, and the
    value is left out.

    With ``dequantised`` it also logs ``<stage>/bits_per_dim_dequantised``, the uniform
    dequantisation bound of Theis et al. (2016, arXiv:1511.01844, equation 2) on the 8-bit image,
    for a module that works in pixels. Both come with the number of images, ``<name>_n``: those that
    the model gives a likelihood, of documents of several images perhaps the first alone.

    Args:
        dequantised: Also measure the 8-bit bound, at the cost of a second pass.
        parts: Names of parts of a ``datamodules.Blend`` that are measured apart too: ``emoji`` adds
            ``<name>_emoji`` and ``<name>_emoji_n``.

    Raises:
        UserError: If the module has no exact likelihood, or ``dequantised`` is asked of one whose
            latent space is not pixels.
    """

    def __init__(self, dequantised: bool = False, parts: list[str] | None = None) -> None:
        self.dequantised = dequantised
        self.parts = parts or []
        self._sums: dict[str, tuple[float, float]] = {}
        self._samples: dict[str, SampleResult] = {}

    def metric_names(self) -> set[str]:
        """Return the names of the means that are asked for, and of their counts."""
        names = ["nll_excess_bits_per_dim", "bits_per_dim_dequantised"][: 1 + self.dequantised]
        names += [f"{name}_{part}" for name in names for part in self.parts]
        return logged_names(*names, *(f"{name}_n" for name in names))

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not isinstance(pl_module, HasLikelihood):
            raise lacks("Likelihood", "a module with log_prob(batch)", pl_module)
        if self.dequantised and not isinstance(pl_module, HasPixelLikelihood):
            needed_by = "Likelihood with dequantised: true"
            raise lacks(needed_by, "a module with pixel_log_prob(batch)", pl_module)

    @override
    def begin_epoch(self) -> None:
        self._sums, self._samples = {}, {}

    @override
    def end_batch(self, pl_module: LightningModule, outputs: object, batch: object) -> None:
        assert isinstance(pl_module, HasLikelihood)
        assert isinstance(batch, DocumentBatch)
        if len(batch.images) == 0:
            return
        # What the evaluation step has returned, in the mapping that Lightning wants, is not
        # computed once more
        known = outputs.get("likelihood") if isinstance(outputs, Mapping) else None
        nats = known if isinstance(known, Likelihoods) else pl_module.log_prob(batch)
        # The entropy of the added noise is a floor: minus infinity where there is none
        if math.isfinite(nats.noise_floor):
            excess = (-nats.log_prob / nats.dims - nats.noise_floor) / math.log(2)
            self._add("nll_excess_bits_per_dim", excess, batch)
        if self.dequantised:
            assert isinstance(pl_module, HasPixelLikelihood)
            bits = dequantised_bits_per_dim(pl_module, batch)
            self._add("bits_per_dim_dequantised", bits, batch)

    def _add(self, name: str, values: Float[Tensor, " m"], batch: DocumentBatch) -> None:
        names = (name, f"{name}_{batch.part}") if batch.part in self.parts else (name,)
        for key in names:
            total, n = self._sums.get(key, (0.0, 0.0))
            self._sums[key] = total + float(values.double().sum()), n + len(values)
        items = image_keys(batch)
        if len(values) < len(items):  # of documents of several images perhaps the first alone
            items = [(key, i) for key, i in items if i == 0]
        if len(values) != len(items):
            return
        for (key, i), value in zip(items, values.tolist(), strict=True):
            item = f"{key}/{i}" if i else key
            one = self._samples.setdefault(item, {"item": item, "group": key, "values": {}})
            one["values"] |= dict.fromkeys((f"test/{own}" for own in names), value)

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        for name, (mean, n) in means(trainer, self._sums).items():
            log_values(pl_module, stage, {name: mean, f"{name}_n": n})

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "test")
        self.sample_results = [
            one for part in gather(trainer, self._samples) for one in part.values()
        ]


def image_keys(batch: DocumentBatch) -> list[tuple[str, int]]:
    """Return of each image the key of its document and its number in it, in order."""
    return [(document.key, i) for document in batch.documents for i in range(document.num_images)]


def dequantised_bits_per_dim(
    module: HasPixelLikelihood, batch: DocumentBatch
) -> Float[Tensor, " m"]:
    """Return the uniform-dequantisation bound on bits per dimension of each modelled 8-bit image.

    A pixel level k in 0..255 is the value ``k / 127.5 - 1``; its cell is ``1 / 127.5`` wide, so
    ``-log2 P(k) <= E_u[-log2 p(x)] + log2(127.5)`` per dimension with
    ``x = (k + u - 1/2) / 127.5 - 1`` and u uniform in [0, 1). One draw of u per image is used,
    keyed by the sample, so that every arm sees the same one.
    """
    keys = image_keys(batch)
    noise = torch.stack(
        [
            torch.rand(batch.images.shape[1:], generator=stream(module.seed, "dequantise", key, i))
            for key, i in keys
        ]
    ).to(batch.images)
    # Theis et al. 2016 (arXiv 1511.01844), equation 2, with one draw of u
    half = (PIXEL_LEVELS - 1) / 2
    levels = ((batch.images + 1) * half).round().clamp(0, PIXEL_LEVELS - 1)
    images = (levels + noise - 0.5) / half - 1
    log_prob = module.pixel_log_prob(replace(batch, images=images))
    if len(log_prob) > len(images):
        raise UserError(
            "pixel_log_prob must return at most one value an image: "
            f"got {len(log_prob)} for {len(images)}"
        )
    dims = images[0].numel()
    return -log_prob / (dims * math.log(2)) + math.log2(half)
