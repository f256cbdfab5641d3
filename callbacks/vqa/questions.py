"""Questions of evaluation samples: which are asked, in which batches, and all that is known."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from callbacks.protocols import (
    EvaluationSample,
    HasAllAnswers,
    HasChoices,
    HasQuestionTypes,
    HasTruth,
    SampleTexts,
)
from callbacks.reporting import evenly
from pretzel.errors import UserError
from pretzel.sequence.document import Truth

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AnsweredQuestion:
    """A question about the sample of a key, and the answer that was given to it.

    Attributes:
        key: Names the sample.
        question: The question.
        truth: The target in training: the most frequent answer of people.
        answer: The answer; empty as long as none was given.
        answers: Those of all people, as often as they were given; empty where the target is all
            that is known.
        answer_type: Kind of answer, where the data names it.
        question_type: Kind of question, where the data names it.
        choices: Texts that it may be answered with, in order, where the data names them.
        sample_truth: Ground truth of the sample, for a scoring that asks for it.
    """

    key: str
    question: str
    truth: str
    answer: str = ""
    answers: tuple[str, ...] = ()
    answer_type: str = ""
    question_type: str = ""
    choices: tuple[str, ...] = ()
    sample_truth: Truth = field(default_factory=dict, repr=False, hash=False)


Asked = tuple[EvaluationSample, Sequence[AnsweredQuestion]]
"""A sample and those of its questions that are asked."""


def questions_of(sample: SampleTexts, *, with_truth: bool = False) -> list[AnsweredQuestion]:
    """Return the questions about a sample, not answered yet.

    Args:
        sample: The sample.
        with_truth: Whether they hold the ground truth of the sample.

    Raises:
        UserError: If it has answers, types or choices, but not one for each question.
    """
    every: Sequence[Sequence[str]] = sample.answers if isinstance(sample, HasAllAnswers) else ()
    types: tuple[Sequence[str], Sequence[str]] = ((), ())
    if isinstance(sample, HasQuestionTypes):
        types = (sample.answer_types, sample.question_types)
    answers = _column(sample, "answers", every)
    answer_types = _column(sample, "answer_types", types[0])
    question_types = _column(sample, "question_types", types[1])
    choices = _column(sample, "choices", sample.choices if isinstance(sample, HasChoices) else ())
    for name, texts in (("answers", answers), ("choices", choices)):
        if any(isinstance(one, str) for one in texts):
            raise UserError(
                f"{name} of sample {sample.key!r} must be a list of texts for each question, got "
                "texts"
            )
    truth: Truth = sample.truth if with_truth and isinstance(sample, HasTruth) else {}
    return [
        AnsweredQuestion(
            key=sample.key,
            question=question,
            truth=target,
            answers=tuple(answers[place] or ()),
            answer_type=answer_types[place] or "",
            question_type=question_types[place] or "",
            choices=tuple(choices[place] or ()),
            sample_truth=truth,
        )
        for place, (question, target) in enumerate(sample.questions)
    ]


def _column(sample: SampleTexts, name: str, values: Sequence[T]) -> Sequence[T | None]:
    """Return one value a question, None where the sample has none."""
    count = len(sample.questions)
    if values and len(values) != count:
        raise UserError(
            f"{name} of sample {sample.key!r} must be one for each of its {count} questions, got "
            f"{len(values)}"
        )
    return values or [None] * count


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


def batched_questions(asked: Iterable[Asked], size: int) -> Iterator[list[Asked]]:
    """Yield samples in batches of at most ``size`` questions; those of a sample stay together."""
    batch: list[Asked] = []
    total = 0
    for item in asked:
        if batch and total + len(item[1]) > size:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += len(item[1])
    if batch:
        yield batch
