"""How answers are scored: the contract, and VQAv2's soft accuracy over groups of questions."""

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal, final, get_args

from typing_extensions import override

from callbacks.vqa.normalisation import normalise
from callbacks.vqa.questions import AnsweredQuestion

Group = Literal["yes_no", "number", "other"]
"""VQAv2's kinds of answers."""

_ENOUGH = 3
_NUMBER = re.compile(r"\d*\.?\d+")


def soft_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Return ``min(matches / 3, 1)``, averaged over the answers of all people but one.

    All are normalised. Of ten answers this is VQAv2's accuracy (Goyal et al. 2017; Antol et al.
    2015, section 3). Of a single one it is exact match. Of two or three, fewer than three others
    are left, who suffice if they agree: ``min(matches / 2, 1)`` of three, ``matches`` of two.

    Args:
        answer: The answer that is scored.
        answers: Those that people gave, at least one.
    """
    count, given = len(answers), normalise(answer)
    matches = sum(normalise(one) == given for one in answers)
    if count == 1 or not matches:
        return float(matches)
    enough = min(_ENOUGH, count - 1)
    # one who gave the answer is left out, or one who did not
    agreeing, others = (min(left / enough, 1.0) for left in (matches - 1, matches))
    return (matches * agreeing + (count - matches) * others) / count


def group_of(answered: AnsweredQuestion) -> Group:
    """Return the kind of answer that the data names, or else that of the normalised target."""
    named, truth = type_name(answered.answer_type), normalise(answered.truth)
    for group in get_args(Group):
        if named == group:
            return group  # type: ignore[no-any-return]  # one of the three
    if truth in ("yes", "no"):
        return "yes_no"
    return "number" if _NUMBER.fullmatch(truth) else "other"


class Scoring(ABC):
    """How answers are scored.

    Attributes:
        name: Name of what is logged; those of all values begin with it.
        ends: Ends of these names; ``*`` stands for types of the data.
        whole_images: Whether all questions about an image are asked, or none.
        needs_truth: Whether questions come with the ground truth of their sample.
    """

    no_laws: ClassVar[str] = "a score is what its authors say it is"
    name: ClassVar[str]
    ends: ClassVar[tuple[str, ...]]
    whole_images: ClassVar[bool] = False
    needs_truth: ClassVar[bool] = False

    def check(self, asked: Sequence[AnsweredQuestion]) -> None:
        """Refuse questions that cannot be scored so, before they are asked; by default none.

        Raises:
            UserError: With the first one.
        """
        return

    @abstractmethod
    def is_right(self, answered: AnsweredQuestion) -> bool:
        """Tell whether an answer has something of the truth."""

    @abstractmethod
    def scores(self, answered: AnsweredQuestion, prefix: str) -> dict[str, float]:
        """Return what an answer scores, by the metrics that are means over questions."""

    def values(self, answered: Sequence[AnsweredQuestion], prefix: str) -> dict[str, float]:
        """Return the metrics; groups without questions are left out."""
        return means(self.scores(one, prefix) for one in answered)


@final
class SoftAccuracy(Scoring):
    """VQAv2's soft accuracy, by kind of answer and by types of the data, beside exact match."""

    name = "vqa"
    ends = ("", "_exact", "_yes_no", "_open", "_number", "_other", "_type_*")

    @override
    def is_right(self, answered: AnsweredQuestion) -> bool:
        return self._soft(answered) > 0

    @override
    def scores(self, answered: AnsweredQuestion, prefix: str) -> dict[str, float]:
        """Return what the answer to a question scores, by the metrics in whose mean it counts.

        Soft accuracy as ``<prefix>``, ``_yes_no`` or ``_open``, ``_number`` or ``_other``, and
        ``_type_<name>`` of each type that the data names; exact match as ``_exact``.
        """
        group, soft = group_of(answered), self._soft(answered)
        names = {f"_type_{name}" for name in types_of(answered) - {*get_args(Group)}}
        names |= {"", f"_{group}", "_yes_no" if group == "yes_no" else "_open"}
        exact = float(normalise(answered.answer) == normalise(answered.truth))
        return {f"{prefix}{name}": soft for name in sorted(names)} | {f"{prefix}_exact": exact}

    @override
    def values(self, answered: Sequence[AnsweredQuestion], prefix: str) -> dict[str, float]:
        """Return the means of :meth:`scores` over questions; groups without are left out.

        Where no answer is a number, ``_other`` is left out too: it would be ``_open``.
        """
        values = super().values(answered, prefix)
        if f"{prefix}_number" not in values:
            values.pop(f"{prefix}_other", None)
        return values

    def _soft(self, answered: AnsweredQuestion) -> float:
        return soft_accuracy(answered.answer, answered.answers or (answered.truth,))


def means(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each name over the rows that have it."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            values[name].append(value)
    return {name: sum(own) / len(own) for name, own in sorted(values.items())}


def types_of(answered: AnsweredQuestion) -> set[str]:
    """Return the types that the data names, of question and answer, as metrics name them."""
    return {type_name(name) for name in (answered.question_type, answered.answer_type)} - {""}


def type_name(text: str) -> str:
    """Return a name of the data as it stands in that of a metric."""
    return re.sub(r"\W+", "_", text.lower()).strip("_")
