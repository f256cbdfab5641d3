"""Accuracy of answers to questions about images, beside that of a baseline without images."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from rich.console import Console
from rich.progress import track
from typing_extensions import override

from callbacks.evaluation import Evaluation, check_counts
from callbacks.protocols import (
    Answerer,
    EvaluationSample,
    Split,
    answered_questions,
    evaluation_samples,
    lacks,
    require_questions,
)
from callbacks.reporting import (
    Stage,
    digest,
    evenly,
    gather,
    log_values,
    logged_names,
    show_table,
)
from pretzel.errors import NothingToMeasure, UserError

YES_NO = ("yes", "no")
_GROUPS = ("", "_yes_no", "_open")


@dataclass(frozen=True, kw_only=True)
class AnsweredQuestion:
    """One question about the sample of a key, its right answer and the one given."""

    key: str
    question: str
    truth: str
    answer: str


class BlindBaseline:
    """Answers a question by the majority answer that this very question has in training.

    It never sees an image. A question unknown from training gets the overall majority answer;
    of equally frequent answers the one that came first counts.

    Args:
        pairs: (question, answer) pairs of the training split, read once.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        overall = Counter[str]()
        for question, answer in pairs:
            counts[question][answer] += 1
            overall[answer] += 1
        if not overall:
            raise NothingToMeasure("the training split has no questions for the blind baseline")
        self._answers = {q: counter.most_common(1)[0][0] for q, counter in counts.items()}
        self._default = overall.most_common(1)[0][0]

    def answer(self, question: str) -> str:
        """Return the majority answer."""
        return self._answers.get(question, self._default)


def accuracies(answered: Sequence[AnsweredQuestion], prefix: str) -> dict[str, float]:
    """Return exact-match accuracy over all, yes/no and open questions.

    A question is a yes/no question when its true answer is yes or no. Groups without questions
    are left out.
    """
    yes_no = [a for a in answered if a.truth in YES_NO]
    groups = (answered, yes_no, [a for a in answered if a.truth not in YES_NO])
    return {
        f"{prefix}{name}": sum(a.answer == a.truth for a in group) / len(group)
        for name, group in zip(_GROUPS, groups, strict=True)
        if group
    }


class VQAAccuracy(Evaluation):
    """Ask the questions of the evaluation samples; an answer must match exactly.

    Logs ``<stage>/vqa``, ``vqa_yes_no`` and ``vqa_open``, the same for the blind baseline
    (``vqa_blind``, ...) on the same questions, and ``vqa_n``, their number. On all 9,673 test
    questions of easy-VQA the blind baseline reaches 0.670 (yes/no 0.825, open 0.233): read ``vqa``
    only beside it. A sample of wrong answers goes to TensorBoard as text.

    Where the module has no image-to-text direction (``can_answer`` is false) nothing is logged:
    the metric is then not applicable, not zero. All questions about an image stay in one batch, so
    that the image is read once; images are dealt out to ranks.

    Args:
        num_questions: Questions at tests; None asks all. Fewer are taken from images spread evenly
            over the evaluation samples, so that all runs get the same ones.
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
        num_questions: int | None = None,
        num_validation_questions: int | None = 1000,
        batch_size: int = 256,
        every_n_validations: int = 1,
        blind_baseline: bool = True,
        num_blind_samples: int | None = 100_000,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(
            self,
            num_questions=num_questions,
            num_validation_questions=num_validation_questions,
            batch_size=batch_size,
            num_blind_samples=num_blind_samples,
        )
        self.num_questions = num_questions
        self.num_validation_questions = num_validation_questions
        self.batch_size = batch_size
        self.blind_baseline = blind_baseline
        self.num_blind_samples = num_blind_samples
        self._blind: BlindBaseline | None = None
        self._counts: dict[Stage, list[int]] = {}

    def metric_names(self) -> set[str]:
        """Return the names of accuracies, of the blind ones if asked for, and of the number."""
        prefixes = ["vqa", "vqa_blind"][: 1 + self.blind_baseline]
        groups = [f"{prefix}{group}" for prefix in prefixes for group in _GROUPS]
        return logged_names("vqa_n", *groups)

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        if not isinstance(pl_module, Answerer):
            raise lacks("VQAAccuracy", "a module with answer(...) and can_answer", pl_module)
        if pl_module.can_answer:
            require_questions(trainer, split, "VQAAccuracy")
        else:
            rank_zero_info("VQAAccuracy: not applicable, the module has no image-to-text direction")

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        limit = self.num_questions if stage == "test" else self.num_validation_questions
        assert isinstance(pl_module, Answerer)
        if not pl_module.can_answer:
            return
        asked = self._asked(trainer, stage, limit)
        of_rank = islice(asked, trainer.global_rank, None, trainer.world_size)
        own = [answer for batch in self._batches(of_rank) for answer in _ask(pl_module, batch)]
        answered = [answer for share in gather(trainer, own) for answer in share]
        if stage == "test":
            self.sample_digest = digest(answered)
        values = accuracies(answered, "vqa") | {"vqa_n": float(len(answered))}
        if self.blind_baseline:
            values |= self._blind_accuracies(trainer, answered)
        log_values(pl_module, stage, values)
        wrong = [a for a in answered if a.answer != a.truth]
        show_table(
            trainer,
            f"{stage}/wrong_answers",
            f"{len(wrong)} of {len(answered)} wrong",
            ("sample", "question", "answer", "truth"),
            [(a.key, a.question, a.answer or "(empty)", a.truth) for a in wrong],
        )

    def _asked(self, trainer: Trainer, stage: Stage, limit: int | None) -> Iterator["_Asked"]:
        """Yield samples with the questions asked about them; one image is held at a time."""
        if limit is not None and stage not in self._counts:  # of samples that can be read
            samples = evaluation_samples(trainer, stage, "VQAAccuracy")
            self._counts[stage] = [len(sample.questions) for sample in samples]
        chosen = None if limit is None else choose_questions(self._counts[stage], limit)
        if chosen is not None:
            rank_zero_info(f"VQAAccuracy: {sum(chosen.values())} questions")
        samples = evaluation_samples(trainer, stage, "VQAAccuracy")
        for place, sample in enumerate(samples):
            questions = sample.questions if chosen is None else sample.questions[: chosen[place]]
            if questions:
                yield sample, questions

    def _blind_accuracies(
        self, trainer: Trainer, answered: Sequence[AnsweredQuestion]
    ) -> dict[str, float]:
        if self._blind is None:
            try:  # late and once: reading the training split takes a while
                self._blind = BlindBaseline(self._training_questions(trainer))
            except NothingToMeasure as nothing:
                rank_zero_warn(f"VQAAccuracy: {nothing}")
                return {}
        guesses = [replace(a, answer=self._blind.answer(a.question)) for a in answered]
        return accuracies(guesses, "vqa_blind")

    def _training_questions(self, trainer: Trainer) -> Iterator[tuple[str, str]]:
        questions = track(
            answered_questions(trainer, "train", self.num_blind_samples, "VQAAccuracy"),
            "Questions of the training split",
            # its own console: a bar of Lightning's may be on the shared one
            console=Console(stderr=True),
            transient=True,
            disable=trainer.progress_bar_callback is None or not trainer.is_global_zero,
        )
        for pairs in questions:
            yield from pairs

    def _batches(self, asked: Iterable["_Asked"]) -> Iterator[list["_Asked"]]:
        batch: list[_Asked] = []
        size = 0
        for item in asked:
            if batch and size + len(item[1]) > self.batch_size:
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += len(item[1])
        if batch:
            yield batch


_Asked = tuple[EvaluationSample, Sequence[tuple[str, str]]]
"""A sample and those of its questions that are asked."""


def choose_questions(counts: Sequence[int], limit: int) -> Counter[int]:
    """Choose ``limit`` questions, all if there are no more, of samples that are spread evenly.

    Args:
        counts: Number of questions of each sample.
        limit: Number of questions.

    Returns:
        How many of its questions are asked, the first ones, by the place of the sample.
    """
    usable = [place for place, count in enumerate(counts) if count]
    total = sum(counts)
    # As many samples as are needed on average; the last one is cut, or more are taken at the end.
    spread = evenly(usable, math.ceil(limit * len(usable) / max(total, limit)))
    chosen = Counter[int]()
    remaining = limit
    for place in dict.fromkeys([*spread, *usable]):
        chosen[place] = min(counts[place], remaining)
        remaining -= chosen[place]
    return chosen


def _ask(module: Answerer, batch: Sequence[_Asked]) -> list[AnsweredQuestion]:
    rows = [(sample, question, truth) for sample, pairs in batch for question, truth in pairs]
    counts = torch.tensor([len(pairs) for _, pairs in batch])
    # Equal keys tell the module that equal images need be read only once
    images = torch.stack([sample.image for sample, _ in batch]).repeat_interleave(counts, 0)
    images = images.to(module.device)
    answers = module.answer(images, [q for _, q, _ in rows], [sample.key for sample, _, _ in rows])
    if len(answers) != len(rows):
        raise UserError(
            f"answer() must return one answer a question: got {len(answers)} for {len(rows)}"
        )
    return [
        AnsweredQuestion(key=sample.key, question=question, truth=truth, answer=answer.strip())
        for (sample, question, truth), answer in zip(rows, answers, strict=True)
    ]
