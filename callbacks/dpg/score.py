"""DPG-Bench's score, by any model that answers questions."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from callbacks.dpg.judges import YesNoJudge
from callbacks.dpg.questions import CATEGORIES, YesNoQuestion, read_questions
from callbacks.generation_metric import GenerationMetric
from pretzel.errors import NothingToMeasure


@final
class DPGBench(GenerationMetric):
    """How many questions about their prompts images answer (Hu et al. 2024, arXiv 2403.05135).

    Logs ``dpg_<judge>``, the mean over images of the share of their questions that are answered
    yes, where a question counts as no if one that it depends on counts so, and
    ``dpg_<judge>_global``, ``_entity``, ``_attribute``, ``_relation`` and ``_other``, the share of
    all answers to questions of a category that are yes, whatever they depend on, as the published
    evaluation has them. Papers show 100 times as much.

    What differs: published figures are of mPLUG, and of a table without its first question, which
    the published evaluation skips. ``callbacks.Generation`` takes the prompts of the table where it
    has none.

    Args:
        questions: The published ``dpg_bench.csv``, or a table like it.
        judge: Answers the questions.
        prompts: Folder with the prompt of each item in ``<item_id>.txt``; None takes the table's
            column ``text``.
    """

    def __init__(self, questions: str, judge: YesNoJudge, prompts: str | None = None) -> None:
        self.questions = questions
        self.judge = judge
        self.prompts = prompts
        self.name = f"dpg_{judge.name}"
        self.reset()

    @cached_property
    def _asked(self) -> dict[str, list[YesNoQuestion]]:
        return read_questions(self.questions, self.prompts)

    @override
    def own_prompts(self) -> list[str]:
        return list(self._asked)

    @override
    def accepts(self, prompt: str) -> bool:
        return prompt in self._asked

    @override
    def prepare(self, device: torch.device) -> None:
        self.judge.prepare(device)

    @override
    def describe(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.judge.facts().items())
        return f"{self.name}: {self.questions}, {facts}"

    @override
    def names(self) -> set[str]:
        means = [self.name, *(f"{self.name}_{category}" for category in CATEGORIES)]
        return {*means, *(f"{name}_n" for name in means)}

    @override
    def facts(self) -> dict[str, dict[str, Any]]:
        own = self.judge.facts()
        return {name: own for name in (self.name, *self._answers)}

    @override
    def reset(self) -> None:
        self._scores: list[float] = []
        self._answers: dict[str, list[float]] = {}  # 1 for yes, by the name of a category's value

    @override
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        for image, prompt in zip(images, prompts, strict=True):
            questions = self._asked[prompt]
            answers = self.judge.says_yes(image, [question.text for question in questions])
            self._scores.append(score(questions, answers))
            for question, answer in zip(questions, answers, strict=True):
                name = f"{self.name}_{question.category}"
                self._answers.setdefault(name, []).append(float(answer))

    @override
    def image_scores(self) -> dict[str, list[float]]:
        return {self.name: list(self._scores)}

    @override
    def compute(self) -> dict[str, float]:
        if not self._scores:
            raise NothingToMeasure(f"{self.name} needs at least 1 generated image, got 0")
        values: dict[str, float] = {}
        for name, own in {self.name: self._scores, **self._answers}.items():
            values |= {name: sum(own) / len(own), f"{name}_n": float(len(own))}
        return values


def score(questions: Sequence[YesNoQuestion], answers: Sequence[bool]) -> float:
    """Return the share of questions answered yes with all that they depend on, in their order."""
    counts = {q.number: answer for q, answer in zip(questions, answers, strict=True)}
    for question in questions:
        counts[question.number] &= all(counts[parent] for parent in question.parents)
    return sum(counts.values()) / len(counts)
