"""Multiple choice, scored as MMBench and SEED-Bench do."""

from collections import defaultdict
from collections.abc import Sequence
from typing import final

from typing_extensions import override

from callbacks.vqa.questions import AnsweredQuestion
from callbacks.vqa.scoring import Scoring, means, type_name
from pretzel.errors import UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def chosen(answer: str, choices: Sequence[str]) -> int | None:
    """Return which choice an answer names, None if none or several.

    The rules of MMBench's evaluation where no language model helps: the one letter that stands
    alone in the answer; or, if no letter does, or several do, the one choice that is contained in
    it, without regard to case, where the answer is at most twice as long as all choices together.

    Args:
        answer: As a model has written it.
        choices: In the order of their letters.
    """
    words = {*answer.translate(_MARKS).split()}
    letters = [place for place in range(len(choices)) if LETTERS[place] in words]
    if len(letters) == 1:
        return letters[0]
    if len(answer) > 2 * sum(map(len, choices)):
        return None
    named = [place for place, text in enumerate(choices) if text.lower() in answer.lower()]
    return named[0] if len(named) == 1 else None


@final
class MMBenchScoring(Scoring):
    """MMBench's CircularEval (Liu et al. 2023): a question counts if all its rotations are right.

    ``mmbench`` is the share of such questions, ``mmbench_category_<name>`` and
    ``mmbench_ability_<name>`` those of a category and of the ability above it; ``mmbench_vanilla``
    is the share of questions that are right as they stand, and ``mmbench_rotations`` that of all
    rotations. Which choice an answer names :func:`chosen` tells; where none is, the published
    evaluation asks a GPT, and here the answer is wrong.
    """

    name = "mmbench"
    ends = ("", "_vanilla", "_rotations", "_category_*", "_ability_*")
    whole_images = True

    @override
    def check(self, asked: Sequence[AnsweredQuestion]) -> None:
        for one in asked:
            if one.truth not in [*LETTERS[: len(one.choices)]]:
                raise UserError(
                    "MMBenchScoring: questions must have choices and a letter as the answer, as "
                    f"those of datamodules.MMBench, but that of {one.key!r} has {one.truth!r}"
                )

    @override
    def is_right(self, answered: AnsweredQuestion) -> bool:
        place = chosen(answered.answer, answered.choices)
        return place is not None and LETTERS[place] == answered.truth

    @override
    def scores(self, answered: AnsweredQuestion, prefix: str) -> dict[str, float]:
        return {f"{prefix}_rotations": float(self.is_right(answered))}

    @override
    def values(self, answered: Sequence[AnsweredQuestion], prefix: str) -> dict[str, float]:
        by_question: defaultdict[str, list[AnsweredQuestion]] = defaultdict(list)
        for one in answered:
            by_question[one.key].append(one)
        rows = []
        for rotations in by_question.values():
            first, is_right = rotations[0], float(all(map(self.is_right, rotations)))
            groups = {"category": first.question_type, "ability": first.answer_type}
            ends = ["", *(f"_{kind}_{type_name(name)}" for kind, name in groups.items() if name)]
            row = {f"{prefix}{end}": is_right for end in ends}
            rows.append(row | {f"{prefix}_vanilla": float(self.is_right(first))})
        return super().values(answered, prefix) | means(rows)


@final
class SEEDBenchScoring(Scoring):
    """Accuracy of SEED-Bench, of all questions and of each evaluation dimension (Li et al. 2023).

    An answer is that choice which it is, as with :class:`callbacks.OwnChoices`, or else the one
    that it names by :func:`chosen`.
    """

    name = "seed_bench"
    ends = ("", "_type_*")

    @override
    def check(self, asked: Sequence[AnsweredQuestion]) -> None:
        for one in asked:
            if one.truth not in one.choices:
                raise UserError(
                    "SEEDBenchScoring: questions must have choices, one of them the answer, as "
                    f"those of datamodules.SEEDBench, but that of sample {one.key!r} has "
                    f"{one.truth!r} among {list(one.choices)}"
                )

    @override
    def is_right(self, answered: AnsweredQuestion) -> bool:
        if answered.answer in answered.choices:
            return answered.answer == answered.truth
        place = chosen(answered.answer, answered.choices)
        return place is not None and answered.choices[place] == answered.truth

    @override
    def scores(self, answered: AnsweredQuestion, prefix: str) -> dict[str, float]:
        kind = type_name(answered.question_type)
        ends = ["", f"_type_{kind}"] if kind else [""]
        return dict.fromkeys((f"{prefix}{end}" for end in ends), float(self.is_right(answered)))
