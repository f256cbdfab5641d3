"""Answers to questions of yes or no, scored as POPE and MME do."""

from collections import defaultdict
from collections.abc import Sequence
from typing import final

from typing_extensions import override

from callbacks.vqa.questions import AnsweredQuestion
from callbacks.vqa.scoring import Scoring, means, types_of
from pretzel.errors import UserError

_FIGURES = ("_accuracy", "_precision", "_recall", "_f1", "_yes_ratio")


@final
class POPEScoring(Scoring):
    """Accuracy, precision, recall and F1 of yes, and the share of yes (Li et al. 2023).

    Of all questions together and of each type, which is a file of POPE's. An answer is no if its
    first sentence has the word No, no or not, and else yes, as in the published evaluation. Without
    a yes precision and F1 are 0.
    """

    name = "pope"
    ends = (*_FIGURES, *(f"{figure}_*" for figure in _FIGURES))

    @override
    def check(self, asked: Sequence[AnsweredQuestion]) -> None:
        _require_yes_or_no(self, asked)

    @override
    def is_right(self, answered: AnsweredQuestion) -> bool:
        return _says_yes(answered.answer) == (answered.truth == "yes")

    @override
    def scores(self, answered: AnsweredQuestion, prefix: str) -> dict[str, float]:
        right, yes = float(self.is_right(answered)), float(_says_yes(answered.answer))
        ends = ["", *(f"_{name}" for name in types_of(answered))]
        return {
            f"{prefix}_{figure}{end}": value
            for end in ends
            for figure, value in (("accuracy", right), ("yes_ratio", yes))
        }

    @override
    def values(self, answered: Sequence[AnsweredQuestion], prefix: str) -> dict[str, float]:
        groups: defaultdict[str, list[AnsweredQuestion]] = defaultdict(list)
        for one in answered:
            for end in ("", *(f"_{name}" for name in types_of(one))):
                groups[end].append(one)
        values = super().values(answered, prefix)
        for end, own in groups.items():
            hits = sum(one.truth == "yes" and _says_yes(one.answer) for one in own)
            said = sum(_says_yes(one.answer) for one in own)
            true = sum(one.truth == "yes" for one in own)
            values |= {
                f"{prefix}_precision{end}": hits / max(said, 1),
                f"{prefix}_recall{end}": hits / max(true, 1),
                f"{prefix}_f1{end}": 2 * hits / max(said + true, 1),  # their harmonic mean
            }
        return values


PERCEPTION = [
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "ocr",
]
COGNITION = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"]


@final
class MMEScoring(Scoring):
    """Accuracy and accuracy+ of MME (Fu et al. 2023): of questions, and of images all right.

    The score of a category is the sum of both in percent, at most 200; perception is the sum of ten
    categories, cognition that of four, and each is logged where there are all of them. An answer
    counts as yes or no if it is that, or y or n, or has it within its first four letters;
    otherwise it is wrong.
    """

    name = "mme"
    ends = ("_accuracy", "_accuracy_plus", "_perception", "_cognition", "_category_*")
    whole_images = True

    @override
    def check(self, asked: Sequence[AnsweredQuestion]) -> None:
        _require_yes_or_no(self, asked)

    @override
    def is_right(self, answered: AnsweredQuestion) -> bool:
        return _yes_or_no(answered.answer) == answered.truth

    @override
    def scores(self, answered: AnsweredQuestion, prefix: str) -> dict[str, float]:
        return {f"{prefix}_accuracy": float(self.is_right(answered))}

    @override
    def values(self, answered: Sequence[AnsweredQuestion], prefix: str) -> dict[str, float]:
        by_image: defaultdict[str, list[AnsweredQuestion]] = defaultdict(list)
        for one in answered:
            by_image[one.key].append(one)
        plus = [
            {
                end: float(all(map(self.is_right, own)))
                for end in ("_accuracy_plus", *types_of(own[0]))
            }
            for own in by_image.values()
        ]
        of_images = means(plus)
        of_questions = means(
            dict.fromkeys(types_of(one), float(self.is_right(one))) for one in answered
        )
        category = {name: 100 * (of_questions[name] + of_images[name]) for name in of_questions}
        values = super().values(answered, prefix)
        if answered:
            values[f"{prefix}_accuracy_plus"] = of_images["_accuracy_plus"]
        values |= {f"{prefix}_category_{name}": value for name, value in category.items()}
        for name, parts in (("perception", PERCEPTION), ("cognition", COGNITION)):
            if category.keys() >= {*parts}:
                values[f"{prefix}_{name}"] = sum(category[part] for part in parts)
        return values


def _says_yes(answer: str) -> bool:
    words = answer.split(".")[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & {*words}


def _yes_or_no(answer: str) -> str:
    text = answer.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text, "")
    return next((word for word in ("yes", "no") if word in text[:4]), "")


def _require_yes_or_no(scoring: Scoring, asked: Sequence[AnsweredQuestion]) -> None:
    for one in asked:
        if one.truth not in ("yes", "no"):
            raise UserError(
                f"{type(scoring).__name__}: true answers must be yes or no, that of sample "
                f"{one.key!r} is {one.truth!r}"
            )
