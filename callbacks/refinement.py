"""How much is gained where a model checks its own pictures, and generates wrong ones anew."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from callbacks.checked_pictures import Caption, CheckedPictures, checked_pictures
from callbacks.evaluation import Evaluation, check_counts
from callbacks.generation_metric import GenerationMetric, ReferenceMetric
from callbacks.image_check import ImageCheck
from callbacks.image_generator import ImageGenerator, image_generator
from callbacks.image_results import MOST_PICTURES, small_pictures
from callbacks.picture_choice import WAYS, choose
from callbacks.prompts import prompt_of, update
from callbacks.protocols import Split, evaluation_texts
from callbacks.reporting import Stage, gather, local_batches, log_values, logged_names
from callbacks.sampling_facts import sampling_facts
from pretzel.ablation.protocols import SampleResult
from pretzel.errors import NothingToMeasure, UserError
from pretzel.generation.conversation_batch import require_pretzel
from pretzel.media.base import Medium
from pretzel.media.integers import to_floats
from pretzel.sequence.caption_questioner import CaptionQuestioner


class Refinement(Evaluation):
    r"""Let the model ask itself about its pictures, and generate anew those it finds wrong.

    Of each caption it generates a picture, and answers questions about it whose answers the caption
    settles; while one is wrong it generates another, of other noise, at most ``rounds`` times. The
    best answered is kept. The questions are asked about the picture alone: the caption, from which
    they could be answered without a look, is not in the sequence. The VLM sees the very latents
    that the flow has made. Beside it stand the other ways to choose among such pictures, all held
    to the captions by one metric, whose values are logged as
    ``<stage>/refine/<way>/<name of the metric>`` with these ways:

    - ``first``: the first picture, generated once;
    - ``redrawn``: the best answered, of as many as were needed, on average ``refine/pictures``;
    - ``likelihood_equal``: the one with the largest :math:`\log p(x|\text{caption})`, the flow's
      exact unguided density of the latents, of as many pictures as ``redrawn`` took: over all
      captions their sum is the same;
    - ``likelihood``: the likeliest of ``rounds + 1``;
    - ``answers``: the best answered of ``rounds + 1``, and of equally good ones the likeliest.

    Pictures alone are counted: asking and scoring read one once, generating runs its positions one
    after the other. All of them are generated, so that each way chooses among the same; their noise
    belongs to the sample, and the first are those of ``PretzelModule.generate``.

    Where the module has no image-to-text direction (``can_answer`` is false) nothing is logged:
    this is then not applicable, not zero. Captions are dealt out to ranks.

    Args:
        metric: Judges pictures by their captions.
        questions: What the model asks itself, such as :class:`datamodules.SceneCaptionQuestioner`.
        num_captions: Captions, the first of the evaluated split that can be judged and asked about.
        rounds: How often a picture is generated anew at most.
        batch_size: Pictures generated at a time on each rank; the noise does not depend on it.
        every_n_validations: Evaluate at every n-th validation of a fit; tests always do.

    Attributes:
        facts: By metric, what its value was made of: ``pictures`` of a caption, ``questions``, and
            those of :class:`callbacks.Generation`.

    Raises:
        UserError: If a number is below 1, the metric compares with real images, or module or
            datamodule lack what is needed, all before training; if pictures are not finite or all
            equal.
    """

    def __init__(
        self,
        metric: GenerationMetric,
        questions: CaptionQuestioner,
        num_captions: int = 200,
        rounds: int = 3,
        batch_size: int = 50,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(self, num_captions=num_captions, rounds=rounds, batch_size=batch_size)
        if isinstance(metric, ReferenceMetric):
            raise UserError(
                "Refinement: metric must judge pictures by their captions, but "
                f"{type(metric).__name__} compares them with real ones"
            )
        self.metric = metric
        self.questions = questions
        self.num_captions = num_captions
        self.rounds = rounds
        self.batch_size = batch_size
        self.facts: dict[str, dict[str, Any]] = {}

    def metric_names(self) -> set[str] | None:
        """Return the names of the metric in every way; None if they are unknown."""
        names = self.metric.names()
        if names is None:
            return None
        own = (f"refine/{way}/{name}" for way in WAYS for name in names)
        return logged_names("refine/pictures", "refine/pictures_n", *own)

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        module = image_generator(pl_module, "Refinement")
        if module is None:
            rank_zero_info("Refinement: not applicable, the module has no image-to-text direction")
            return
        medium = require_pretzel(module.pretzel).latent.medium
        if not isinstance(medium, self.metric.measures):
            raise UserError(
                f"Refinement: {type(self.metric).__name__} measures "
                f"{self.metric.measures.__name__}, but the model makes {type(medium).__name__}"
            )
        if next(self._captions(trainer, split), None) is None:
            raise NothingToMeasure(
                f"Refinement needs captions that {type(self.metric).__name__} can judge and "
                f"{type(self.questions).__name__} asks about, but the {split} samples have none"
            )
        if trainer.is_global_zero:
            self.metric.prepare(pl_module.device)

    def _captions(self, trainer: Trainer, split: Split) -> Iterator[Caption]:
        place = 0
        for sample in evaluation_texts(trainer, split, "Refinement"):
            prompt = prompt_of(sample, [self.metric])
            if prompt is not None and (asked := self.questions(prompt.text)):
                yield Caption(place=place, key=sample.key, prompt=prompt, asked=asked)
                place += 1

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        module = image_generator(pl_module, "Refinement")
        if module is None:
            return
        captions = list(islice(self._captions(trainer, stage), self.num_captions))
        rank_zero_info(f"Refinement: {len(captions)} captions, {self.rounds + 1} pictures of each")
        batches = local_batches(trainer, captions, self.batch_size)
        local = [
            one for batch in batches for one in checked_pictures(module, batch, self.rounds + 1)
        ]
        checked = [one for share in gather(trainer, local) for one in share]
        checked.sort(key=lambda one: one.caption.place)
        check = ImageCheck(f"Refinement: at step {trainer.global_step}", "refine/*")
        for one in checked:
            check.take_in(one.pictures, one.num_not_finite)
        check.end()
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            values = self._measure(checked, module, stage, sampling_facts(trainer, module))
        log_values(pl_module, stage, trainer.strategy.broadcast(values))

    def _measure(
        self,
        checked: Sequence[CheckedPictures],
        module: ImageGenerator,
        stage: Stage,
        common: Mapping[str, Any],
    ) -> dict[str, float]:
        """Return the values of the metric in every way; keep facts and results of captions."""
        all_of_them = str(self.rounds + 1)
        taken = {"first": "1", "redrawn": f"1 to {all_of_them}", "likelihood_equal": "as redrawn"}
        common = {"n": len(checked), "questions": type(self.questions).__name__, **common}
        num_drawn = [one.candidates.num_drawn for one in checked]
        values = {"refine/pictures": sum(num_drawn) / len(checked)}
        values["refine/pictures_n"] = float(len(checked))
        scores: dict[str, list[float]] = {}
        self.not_measured = {}
        chosen = choose([one.candidates for one in checked])
        for way, numbers in chosen.items():
            self.metric.reset()
            for start in range(0, len(checked), self.batch_size):
                end = start + self.batch_size
                pairs = list(zip(checked[start:end], numbers[start:end], strict=True))
                images = to_floats([one.pictures[i : i + 1] for one, i in pairs])
                prompts = [one.caption.prompt for one, _ in pairs]
                update(self.metric, images.to(module.pretzel.device), prompts)
            try:
                own = self.metric.compute()
            except NothingToMeasure as nothing:
                self.not_measured[f"refine/{way}"] = str(nothing)
                rank_zero_warn(f"Refinement: {nothing}")
                continue
            told = self.metric.facts()
            values |= {f"refine/{way}/{name}": value for name, value in own.items()}
            scores |= {f"refine/{way}/{n}": s for n, s in self.metric.image_scores().items()}
            self.facts |= {
                f"{stage}/refine/{way}/{name}": told.get(name, {})
                | {"pictures": taken.get(way, all_of_them), **common}
                for name in own
                if not name.endswith("_n")
            }
        if stage == "test":
            medium = module.pretzel.latent.medium
            self.sample_results = list(_results(checked, chosen["redrawn"], scores, medium))
        return values


def _results(
    checked: Sequence[CheckedPictures],
    kept: Sequence[int],
    scores: Mapping[str, Sequence[float]],
    medium: Medium,
) -> Iterator[SampleResult]:
    """Yield what each caption scores in every way, with the picture that was kept in the end."""
    for place, (one, number) in enumerate(zip(checked, kept, strict=True)):
        text, drawn = one.caption.prompt.text, one.candidates.num_drawn
        values: dict[str, float | None] = {f"test/{n}": own[place] for n, own in scores.items()}
        values["test/refine/pictures"] = float(drawn)
        result = SampleResult(
            item=f"refine {one.caption.key}: {text}",
            values=values,
            texts={
                "prompt": text,
                "wrong of each": "; ".join(", ".join(own) or "none" for own in one.wrong[:drawn]),
            },
        )
        if place < MOST_PICTURES:
            image = to_floats([one.pictures[number : number + 1]])
            result["picture"] = next(small_pictures(medium, image))
        yield result
