"""How well a model describes images: CIDEr and BLEU-4 of captions that it writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torchmetrics.functional.text import bleu_score
from typing_extensions import override

from callbacks.captions.cider import cider_d
from callbacks.captions.words import TOKENS, caption_words
from callbacks.evaluation import Evaluation, check_counts
from callbacks.protocols import (
    Describer,
    EvaluationSample,
    HasCaptions,
    SampleTexts,
    Split,
    chosen_samples,
    evaluation_samples,
    evaluation_texts,
    lacks,
)
from callbacks.reporting import Stage, evenly, gather, log_values, logged_names, show_table
from pretzel.ablation.protocols import SampleResult
from pretzel.errors import NothingToMeasure, UserError


@dataclass(frozen=True, kw_only=True)
class Description:
    """The text that a model has written about the image of a key, and the captions it has."""

    key: str
    references: tuple[str, ...]
    text: str = ""


class CaptionQuality(Evaluation):
    """Let the model describe the evaluation images, and compare with their captions.

    The text is written behind the image, the likeliest token each time, as a model learns it from
    ``datamodules.Descriptions``. Logs ``<stage>/caption_cider``, the mean of CIDEr-D over images
    (:func:`callbacks.captions.cider.cider_d`; COCO's tables show it times 100);
    ``caption_bleu4``, BLEU of the whole corpus with n-grams of up to 4 words, the closest reference
    length and no smoothing (Papineni et al. 2002); and ``caption_n``, the number of images. Words
    are those of :func:`callbacks.captions.words.caption_words`. All captions of an image are
    references (:class:`callbacks.protocols.HasCaptions`), or the one that it has. Where no
    reference has four words there is no BLEU-4. CIDEr weighs words by the images of this very
    evaluation: compare values of the same images alone.

    A module without an image-to-text direction logs nothing: not applicable, not zero.

    Args:
        num_images: Images at tests, spread evenly over those with captions; None for all.
        num_validation_images: Images at validations, likewise.
        batch_size: Images described at a time.
        max_tokens: A description that has not ended after so many tokens is cut.
        request: Text between the image and the description, such as a model was trained with; none
            if empty.
        every_n_validations: Describe at every n-th validation of a fit; tests always do.

    Raises:
        UserError: If a number is below 1, or module or datamodule lack what is needed.
    """

    def __init__(
        self,
        num_images: int | None = None,
        num_validation_images: int | None = 500,
        batch_size: int = 64,
        max_tokens: int = 32,
        request: str = "",
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(
            self,
            num_images=num_images,
            num_validation_images=num_validation_images,
            batch_size=batch_size,
            max_tokens=max_tokens,
        )
        self.num_images = num_images
        self.num_validation_images = num_validation_images
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.request = request
        self.facts: dict[str, dict[str, Any]] = {}
        self._keys: dict[Stage, list[str]] = {}

    def metric_names(self) -> set[str]:
        """Return the names of both metrics and of the number of images."""
        return logged_names("caption_cider", "caption_bleu4", "caption_n")

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        if not isinstance(pl_module, Describer):
            raise lacks("CaptionQuality", "a module with describe(...) and can_answer", pl_module)
        if not pl_module.can_answer:
            rank_zero_info("CaptionQuality: not applicable, the module has no image-to-text")
        elif not any(map(references, evaluation_samples(trainer, split, "CaptionQuality"))):
            raise NothingToMeasure(
                f"CaptionQuality needs captions, but the {split} samples have none"
            )

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        limit = self.num_images if stage == "test" else self.num_validation_images
        assert isinstance(pl_module, Describer)
        if not pl_module.can_answer:
            return
        samples = self._samples(trainer, stage, limit)
        of_rank = islice(samples, trainer.global_rank, None, trainer.world_size)
        own: list[Description] = []
        while batch := list(islice(of_rank, self.batch_size)):
            own += self._describe(pl_module, batch)
        described = [one for share in gather(trainer, own) for one in share]
        if not described:
            rank_zero_warn("CaptionQuality measures nothing: no chosen image can be read")
            return
        texts = [caption_words(one.text) for one in described]
        people = [[caption_words(text) for text in one.references] for one in described]
        cider = cider_d(texts, people)
        values = {"caption_cider": sum(cider) / len(cider)}
        if any(len(words) >= 4 for of_image in people for words in of_image):
            values["caption_bleu4"] = _bleu4(texts, people)
        else:
            rank_zero_warn("CaptionQuality: no caption has four words, so there is no BLEU-4")
        fact = {"tokens": TOKENS, "references": _counted(described)}
        self.facts |= {f"{stage}/{name}": fact for name in values}
        log_values(pl_module, stage, values | {"caption_n": float(len(described))})
        if stage == "test":
            self.sample_results = [_result(*pair) for pair in zip(described, cider, strict=True)]
        show_table(
            trainer,
            f"{stage}/descriptions",
            f"{len(described)} images described",
            ("sample", "description", "caption"),
            [(one.key, one.text or "(empty)", one.references[0]) for one in described],
        )

    def _samples(
        self, trainer: Trainer, stage: Stage, limit: int | None
    ) -> Iterator[EvaluationSample]:
        """Return the samples that are described; one image is held at a time."""
        if limit is None:
            samples = evaluation_samples(trainer, stage, "CaptionQuality")
        else:
            if stage not in self._keys:
                texts = evaluation_texts(trainer, stage, "CaptionQuality")
                self._keys[stage] = [one.key for one in texts if references(one)]
            chosen = {*evenly(self._keys[stage], limit)}
            samples = chosen_samples(trainer, stage, chosen, "CaptionQuality")
        return filter(references, samples)

    def _describe(
        self, module: LightningModule, samples: Sequence[EvaluationSample]
    ) -> list[Description]:
        assert isinstance(module, Describer)
        images = torch.stack([sample.image for sample in samples]).to(module.device)
        blank = [Description(key=s.key, references=references(s)) for s in samples]
        texts = module.describe(
            images, [one.key for one in blank], request=self.request, max_tokens=self.max_tokens
        )
        if len(texts) != len(blank):
            raise UserError(
                f"describe() must return one text an image: got {len(texts)} for {len(blank)}"
            )
        return [replace(one, text=text.strip()) for one, text in zip(blank, texts, strict=True)]


def _bleu4(texts: Sequence[Sequence[str]], people: Sequence[Sequence[Sequence[str]]]) -> float:
    # The shorter of two equally close references counts: torchmetrics takes the first
    ordered = [[" ".join(words) for words in sorted(of_image, key=len)] for of_image in people]
    return float(bleu_score([" ".join(words) for words in texts], ordered))


def references(sample: SampleTexts) -> tuple[str, ...]:
    """Return all captions of a sample that say something."""
    every = (*sample.captions,) if isinstance(sample, HasCaptions) else ()
    return tuple(text for text in every or (sample.caption,) if caption_words(text))


def _counted(described: Sequence[Description]) -> str:
    """Return how many references images have, as ``5`` or ``1 to 5``."""
    counts = [len(one.references) for one in described]
    return " to ".join(map(str, sorted({min(counts), max(counts)})))


def _result(described: Description, cider: float) -> SampleResult:
    captions = " | ".join(described.references)
    return {
        "item": described.key,
        "values": {"test/caption_cider": cider},
        "texts": {"description": described.text, "captions": captions},
    }
