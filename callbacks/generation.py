"""Generate images once per evaluation, and let every metric look at them."""

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from typing_extensions import override

from callbacks.evaluation import Evaluation, check_counts
from callbacks.generation_metric import GenerationMetric, ReferenceMetric, TruthMetric
from callbacks.image_check import ImageCheck
from callbacks.image_results import MOST_PICTURES, image_results, small_pictures
from callbacks.prompts import (
    Prompt,
    check_prompts,
    own_prompts,
    prompt_of,
    update,
    with_truth,
)
from callbacks.protocols import (
    Generator,
    HasPrompts,
    Split,
    evaluation_samples,
    evaluation_texts,
    generator_of,
    images_identity,
)
from callbacks.reporting import (
    Stage,
    digest,
    gather,
    log_values,
    logged_names,
    tensorboards,
)
from callbacks.sampling_facts import sampling_facts
from pretzel.errors import NothingToMeasure, UserError
from pretzel.media.integers import to_floats, to_integers


class Generation(Evaluation):
    """Measure images generated from prompts, at noise that is the same in every evaluation.

    Batches are dealt out to ranks and keyed by their number, so that the images do not depend on
    how many ranks there are (they do depend on ``batch_size``). Rank zero measures them rounded
    as files hold them, and all ranks log the same values, among them
    ``<stage>/seconds_per_image``, the wall time of sampling. Metrics that need real images get all
    samples of the split that is evaluated, once, or what another run has kept of these very
    images in the folder pretzel/references of the user's cache.

    Args:
        metrics: Metrics of the images.
        num_images: Number of images; prompts are repeated in order where there are fewer.
        batch_size: Images generated at a time on each rank.
        prompts: Prompts; None takes those of a metric that has its own (GenEval, DPGBench), spread
            evenly where there are more than images; else the captions of the evaluated split, in
            order, leaving out those that a metric cannot judge (partial captions, for
            ShapeAccuracy). Images that have been made already (:class:`callbacks.PictureFolder`)
            keep theirs, and all are measured. To a metric that asks for ground truth
            (:class:`callbacks.TruthMetric`) a prompt comes with that of the sample whose caption
            it is.
        every_n_validations: Measure at every n-th validation of a fit; tests always measure.

    Images with a NaN, and images that are all constant or all equal, are an error and no score.

    Attributes:
        facts: By metric, what its value was made of: ``n``, the facts of the metric, and
            ``sampler``, ``guidance``, ``denoiser`` and ``ema``, which arms may differ in.

    Raises:
        UserError: If an argument is out of range, a metric cannot judge a given prompt, module or
            datamodule lack what is needed, or a metric's parts cannot be had, all before training;
            if the generated images are NaN or without variance.
    """

    needs_no_model = True

    def __init__(
        self,
        metrics: list[GenerationMetric],
        num_images: int = 256,
        batch_size: int = 64,
        prompts: list[str] | None = None,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(self, num_images=num_images, batch_size=batch_size)
        if not metrics:
            raise UserError("Generation: metrics must name at least one metric, got none")
        if prompts == []:
            raise UserError("Generation: prompts must not be empty")
        self.metrics = metrics
        check_prompts(metrics, prompts or [])
        self.num_images = num_images
        self.batch_size = batch_size
        self.prompts = prompts
        self.facts: dict[str, dict[str, Any]] = {}
        self._real_split: Split | None = None
        self._real_size: tuple[int, ...] | None = None

    def metric_names(self) -> set[str] | None:
        """Return the names of all metrics and of the time; None if a metric's are unknown."""
        names = [metric.names() for metric in self.metrics]
        known = {name for own in names if own is not None for name in own}
        return None if None in names else logged_names(*known, "seconds_per_image")

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(
            metrics=[type(metric).__name__ for metric in self.metrics],
            num_images=self.num_images,
            prompts=self.prompts,
        )

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        medium = generator_of(pl_module, "Generation").medium
        for metric in self.metrics:
            if not isinstance(medium, metric.measures):
                raise UserError(
                    f"Generation: {type(metric).__name__} measures {metric.measures.__name__}, "
                    f"but the model makes {type(medium).__name__}"
                )
        self._choose_prompts(trainer, pl_module, split)
        if any(isinstance(metric, ReferenceMetric) for metric in self.metrics):
            evaluation_samples(trainer, split, "Generation")  # says so if there are none
        if trainer.is_global_zero:
            for metric in self.metrics:
                metric.prepare(pl_module.device)

    def _choose_prompts(
        self, trainer: Trainer, module: LightningModule, split: Split
    ) -> list[Prompt]:
        if isinstance(module, HasPrompts):
            check_prompts(self.metrics, module.prompts)
            return self._with_truth(trainer, split, module.prompts)
        prompts: list[Prompt] = []
        if texts := self.prompts or own_prompts(self.metrics, self.num_images):
            prompts = self._with_truth(trainer, split, texts)
        else:
            samples = evaluation_texts(trainer, split, "Generation without prompts")
            usable = (prompt_of(sample, self.metrics) for sample in samples)
            prompts = list(islice((one for one in usable if one is not None), self.num_images))
        if not prompts:
            raise NothingToMeasure(
                f"no prompts are left: give `prompts`, or a {split} split with "
                "captions that all metrics can judge"
            )
        return [prompts[i % len(prompts)] for i in range(self.num_images)]

    def _with_truth(self, trainer: Trainer, split: Split, texts: Sequence[str]) -> list[Prompt]:
        asks = any(isinstance(metric, TruthMetric) for metric in self.metrics)
        samples = evaluation_texts(trainer, split, "Generation") if asks else ()
        return with_truth(texts, self.metrics, samples)

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        module = generator_of(pl_module, "Generation")
        prompts = self._choose_prompts(trainer, pl_module, stage)
        rank_zero_info(f"Generation: {len(prompts)} images")
        if trainer.is_global_zero:
            self._update_real(trainer, stage, module.device)
            for metric in self.metrics:
                metric.reset()
        seconds = 0.0
        hashes: list[str] = []
        pictures: list[str] = []
        check = ImageCheck(f"Generation: at step {trainer.global_step}", self._what_is_measured)
        for images, share, elapsed in self._generate(trainer, module, prompts, check):
            seconds += elapsed
            if trainer.is_global_zero:
                self._check_size(images)
                hashes += [*(prompt.text for prompt in share), _hash(images)]
                if stage == "test":
                    kept = images[: MOST_PICTURES - len(pictures)]
                    pictures += small_pictures(module.medium, kept)
                for metric in self.metrics:
                    update(metric, images, share)
        check.end()
        if stage == "test":
            self.sample_digest = digest(hashes)
        values: dict[str, float] = {}
        self.not_measured = {}
        if trainer.is_global_zero:
            for metric in self.metrics:
                try:
                    values |= metric.compute()
                except NothingToMeasure as nothing:
                    self.not_measured[type(metric).__name__] = str(nothing)
                    rank_zero_warn(f"Generation: {nothing}")
            common = {"n": len(prompts), **sampling_facts(trainer, module)}
            self.facts |= {f"{stage}/{k}": v | common for k, v in self._facts(values).items()}
            if stage == "test":
                scores = {name: own for m in self.metrics for name, own in m.image_scores().items()}
                texts = [prompt.text for prompt in prompts]
                self.sample_results = image_results(scores, texts, pictures)
            if not isinstance(module, HasPrompts):  # reading a picture is not sampling
                values["seconds_per_image"] = seconds / len(prompts)
            for board in tensorboards(trainer):
                lines = "  \n".join(metric.describe() for metric in self.metrics)
                board.add_text("generation/metrics", lines, trainer.global_step)
        log_values(pl_module, stage, trainer.strategy.broadcast(values))

    def _facts(self, values: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return what the metrics tell of their values; of a count there is nothing to tell."""
        own = {name: fact for m in self.metrics for name, fact in m.facts().items()}
        return {n: own.get(n, {}) for n in values if not n.endswith(("_n", "_n_real"))}

    @property
    def _what_is_measured(self) -> str:
        names = [metric.names() or {type(metric).__name__} for metric in self.metrics]
        return ", ".join(min(own, key=lambda name: (len(name), name)) for own in names)

    def _generate(
        self, trainer: Trainer, module: Generator, prompts: list[Prompt], check: ImageCheck
    ) -> Iterator[tuple[Float[Tensor, "n ..."], list[Prompt], float]]:
        """Yield images and their prompts, in order, and the seconds this rank took for its own."""
        size = self.batch_size * trainer.world_size
        for first in range(0, len(prompts), size):
            share = prompts[first : first + size]
            begin = trainer.global_rank * self.batch_size
            own = [prompt.text for prompt in share[begin : begin + self.batch_size]]
            number = first // self.batch_size + trainer.global_rank
            pixels, not_finite = None, 0
            start = time.perf_counter()
            if own:
                images = module.sample(own, stream_key=("generation", number))
                not_finite = check.not_finite(images)
                pixels = to_integers(images, module.medium.dtype).cpu()  # as they would be saved
            elapsed = time.perf_counter() - start
            # Every rank takes part in the exchange, also one whose batches have run out
            ranks = gather(trainer, (pixels, not_finite))
            images = to_floats([part for part, _ in ranks if part is not None])
            check.take_in(images, sum(count for _, count in ranks))
            yield images.to(module.device), share, elapsed

    def _update_real(self, trainer: Trainer, split: Split, device: torch.device) -> None:
        metrics = [m for m in self.metrics if isinstance(m, ReferenceMetric)]
        if not metrics or split == self._real_split:
            return
        identity = images_identity(trainer, split)
        for metric in metrics:
            metric.reset_real()
        new = [metric for metric in metrics if not (identity and metric.load_real(identity))]
        at_a_time = self.batch_size if new else 1  # of which the size is looked at
        samples = iter(evaluation_samples(trainer, split, "Generation"))
        while batch := list(islice(samples, at_a_time)):
            images = torch.stack([sample.image for sample in batch]).to(device)
            self._real_size = tuple(images.shape[1:])
            if not new:
                break
            for metric in new:
                metric.update_real(images)
        if identity:
            for metric in new:
                metric.save_real(identity)
        self._real_split = split

    def _check_size(self, images: Tensor) -> None:
        if self._real_size not in (None, tuple(images.shape[1:])):
            raise UserError(
                f"Generation: real and generated images must have one size for "
                f"{self._what_is_measured}, got {self._real_size} and {tuple(images.shape[1:])}: "
                "give real ones of the size, by the data's image_size or in the folder of --real"
            )


def _hash(images: Tensor) -> str:
    return hashlib.sha256(images.cpu().contiguous().numpy().data).hexdigest()
