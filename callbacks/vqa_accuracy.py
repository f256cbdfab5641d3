"""Accuracy of answers to questions about images, beside that of a baseline without images."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from rich.console import Console
from rich.progress import track
from typing_extensions import override

from callbacks.evaluation import Evaluation, check_counts
from callbacks.protocols import (
    ImageToText,
    Split,
    chosen_samples,
    evaluation_samples,
    evaluation_texts,
    lacks,
    require_questions,
    suite_of,
)
from callbacks.reporting import Stage, gather, log_values, logged_names, show_table
from callbacks.vqa.answering import Answering, Greedy
from callbacks.vqa.blind_baseline import BlindBaseline
from callbacks.vqa.questions import (
    AnsweredQuestion,
    Asked,
    batched_questions,
    choose_questions,
    questions_of,
)
from callbacks.vqa.scoring import Scoring, SoftAccuracy
from pretzel.ablation.protocols import SampleResult
from pretzel.errors import NothingToMeasure


class VQAAccuracy(Evaluation):
    """Ask the questions of the evaluation samples, and score the answers.

    Logs, with :class:`callbacks.SoftAccuracy`, the mean soft accuracy
    (:func:`callbacks.vqa.scoring.soft_accuracy`, after VQAv2's normalisation; exact match where a
    question has one answer) as ``<stage>/vqa``, over questions whose answer is yes or no as
    ``vqa_yes_no`` and over all others as ``vqa_open``; where some answers are numbers
    ``vqa_number`` and ``vqa_other`` apart, and ``vqa_type_<name>`` of each type of question that
    the data names. ``vqa_exact`` is the share of answers that are the target, the most frequent
    answer. The same for the blind baseline (``vqa_blind``, ...) on the same questions, and
    ``vqa_n``, their number. On all 9,673 test questions of easy-VQA the blind baseline reaches
    0.670 (yes/no 0.825, open 0.233): read ``vqa`` only beside it. A sample of wrong answers goes to
    TensorBoard as text.

    A datamodule's samples may have ``answers``, ``answer_types`` and ``question_types`` beside
    ``questions`` (:class:`callbacks.protocols.HasAllAnswers`, ``HasQuestionTypes``); what the data
    does not name is told from the target. A scoring that asks for it has the ground truth of the
    sample (``HasTruth``) beside each question.

    Where the module has no image-to-text direction (``can_answer`` is false) nothing is logged:
    the metric is then not applicable, not zero. All questions about an image stay in one batch, so
    that the image is read once; images are dealt out to ranks.

    Args:
        answering: How answers are had: written (:class:`callbacks.Greedy`, if not given), or chosen
            (:class:`callbacks.AmongChoices`, :class:`callbacks.OwnChoices`); figures of different
            ways are told apart in tables.
        scoring: How answers are scored: as VQAv2 does (:class:`callbacks.SoftAccuracy`, if not
            given), or by the rules of another suite, under whose name all is then logged.
        num_questions: Questions at tests; None asks all. Fewer are taken from images spread evenly
            over the evaluation samples, so that all runs get the same ones, and no other image is
            decoded.
        num_validation_questions: Questions at validations, likewise.
        batch_size: Questions answered at a time, about.
        every_n_validations: Ask at every n-th validation of a fit; tests always ask.
        blind_baseline: Whether to read the questions of the training split, once and without its
            images, and report what they alone give away.
        num_blind_samples: Training samples whose questions are read, the first ones; None reads
            all.

    Raises:
        UserError: If a number is below 1, or module or datamodule lack what is needed.
    """

    def __init__(
        self,
        answering: Answering | None = None,
        num_questions: int | None = None,
        num_validation_questions: int | None = 1000,
        batch_size: int = 256,
        every_n_validations: int = 1,
        blind_baseline: bool = True,
        num_blind_samples: int | None = 100_000,
        scoring: Scoring | None = None,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(
            self,
            num_questions=num_questions,
            num_validation_questions=num_validation_questions,
            batch_size=batch_size,
            num_blind_samples=num_blind_samples,
        )
        self.answering = answering or Greedy()
        self.scoring = scoring or SoftAccuracy()
        self.facts: dict[str, dict[str, Any]] = {}
        self.num_questions = num_questions
        self.num_validation_questions = num_validation_questions
        self.batch_size = batch_size
        self.blind_baseline = blind_baseline
        self.num_blind_samples = num_blind_samples
        self._blind: BlindBaseline | None = None
        self._counts: dict[Stage, list[tuple[str, int]]] = {}  # by key

    def metric_names(self) -> set[str]:
        """Return the names of accuracies, of the blind ones if asked for, and of the number."""
        name = self.scoring.name
        prefixes = [name, f"{name}_blind"][: 1 + self.blind_baseline]
        ends = self.scoring.ends
        return logged_names(f"{name}_n", *(prefix + end for prefix in prefixes for end in ends))

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        if not isinstance(pl_module, ImageToText):
            raise lacks("VQAAccuracy", "a module with answer(...) and can_answer", pl_module)
        if pl_module.can_answer:
            self.answering.check(pl_module)
            require_questions(trainer, split, "VQAAccuracy")
        else:
            rank_zero_info("VQAAccuracy: not applicable, the module has no image-to-text direction")

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        limit = self.num_questions if stage == "test" else self.num_validation_questions
        assert isinstance(pl_module, ImageToText)
        if not pl_module.can_answer:
            return
        try:  # late: reading the training split takes a while
            self.answering.prepare(lambda count: self._blind_baseline(trainer).frequent(count))
        except NothingToMeasure as nothing:
            rank_zero_warn(f"VQAAccuracy measures nothing: {nothing}")
            return
        asked = self._asked(trainer, stage, limit)
        of_rank = islice(asked, trainer.global_rank, None, trainer.world_size)
        own = [
            answer
            for batch in batched_questions(of_rank, self.batch_size)
            for answer in self._ask(pl_module, batch)
        ]
        answered = [answer for share in gather(trainer, own) for answer in share]
        name, of_suite = self.scoring.name, suite_of(trainer)
        values = self.scoring.values(answered, name)
        fact = {"n": len(answered), "answers": self.answering.describe()}
        fact |= {"suite": of_suite} if of_suite else {}
        self.facts |= {f"{stage}/{name}": fact for name in values}
        values |= {f"{name}_n": float(len(answered))}
        guesses = self._guesses(trainer, answered) if self.blind_baseline else []
        values |= self.scoring.values(guesses, f"{name}_blind")
        log_values(pl_module, stage, values)
        if stage == "test":
            self.sample_results = list(_results(self.scoring, answered, guesses, values))
        wrong = [a for a in answered if not self.scoring.is_right(a)]
        show_table(
            trainer,
            f"{stage}/wrong_answers",
            f"{len(wrong)} of {len(answered)} wrong",
            ("sample", "question", "answer", "truth"),
            [(a.key, a.question, a.answer or "(empty)", a.truth) for a in wrong],
        )

    def _asked(self, trainer: Trainer, stage: Stage, limit: int | None) -> Iterator[Asked]:
        """Yield samples with the questions asked about them; one image is held at a time."""
        chosen = None if limit is None else self._chosen(trainer, stage, limit)
        if chosen is None:
            samples = evaluation_samples(trainer, stage, "VQAAccuracy")
        else:
            rank_zero_info(f"VQAAccuracy: {sum(chosen.values())} questions")
            samples = chosen_samples(trainer, stage, chosen.keys(), "VQAAccuracy")
        for sample in samples:
            questions = questions_of(sample, with_truth=self.scoring.needs_truth)
            self.scoring.check(questions)
            if chosen is not None and not self.scoring.whole_images:
                questions = questions[: chosen[sample.key]]
            if questions:
                yield sample, questions

    def _chosen(self, trainer: Trainer, stage: Stage, limit: int) -> Counter[str]:
        """Return how many questions are asked about each sample, by key, without images."""
        if stage not in self._counts:
            texts = evaluation_texts(trainer, stage, "VQAAccuracy")
            self._counts[stage] = [(one.key, len(one.questions)) for one in texts]
        counts = self._counts[stage]
        chosen = choose_questions([count for _, count in counts], limit)
        return Counter({counts[place][0]: count for place, count in chosen.items() if count})

    def _guesses(
        self, trainer: Trainer, answered: Sequence[AnsweredQuestion]
    ) -> list[AnsweredQuestion]:
        """Return the questions with the answers of the blind baseline, none if there is none."""
        try:
            blind = self._blind_baseline(trainer)
        except NothingToMeasure as nothing:
            rank_zero_warn(f"VQAAccuracy has no blind baseline: {nothing}")
            return []
        return [replace(a, answer=blind.answer(a.question)) for a in answered]

    def _blind_baseline(self, trainer: Trainer) -> BlindBaseline:
        if self._blind is None:  # late and once: reading the training split takes a while
            self._blind = BlindBaseline(self._training_questions(trainer))
        return self._blind

    def _training_questions(self, trainer: Trainer) -> Iterator[tuple[str, str]]:
        samples = track(
            evaluation_texts(trainer, "train", "VQAAccuracy", self.num_blind_samples),
            "Questions of the training split",
            # its own console: a bar of Lightning's may be on the shared one
            console=Console(stderr=True),
            transient=True,
            disable=trainer.progress_bar_callback is None or not trainer.is_global_zero,
        )
        for sample in samples:
            yield from sample.questions

    def _ask(self, module: LightningModule, batch: Sequence[Asked]) -> list[AnsweredQuestion]:
        asked = [question for _, questions in batch for question in questions]
        counts = torch.tensor([len(questions) for _, questions in batch])
        # Equal keys tell the module that equal images need be read only once
        images = torch.stack([sample.image for sample, _ in batch]).repeat_interleave(counts, 0)
        answers = self.answering.answer(module, images.to(module.device), asked)
        return [
            replace(one, answer=answer.strip()) for one, answer in zip(asked, answers, strict=True)
        ]


def _results(
    scoring: Scoring,
    answered: Sequence[AnsweredQuestion],
    guesses: Sequence[AnsweredQuestion],
    logged: Mapping[str, float],
) -> Iterator[SampleResult]:
    """Yield what each question, the n-th of its image, scores in the metrics that were logged."""
    asked = Counter[str]()
    for one, guess in zip_longest(answered, guesses):
        asked[one.key] += 1
        values = scoring.scores(one, scoring.name)
        if guess is not None:
            values |= scoring.scores(guess, f"{scoring.name}_blind")
        yield {
            "item": f"{one.key}#{asked[one.key]}",
            "group": one.key,  # questions about one image
            "values": {f"test/{name}": value for name, value in values.items() if name in logged},
            "texts": {"question": one.question, "answer": one.answer, "truth": one.truth},
        }
