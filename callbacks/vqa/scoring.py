"""VQAv2's soft accuracy of answers, and its means over groups of questions."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, get_args

from callbacks.vqa.normalisation import normalise
from callbacks.vqa.questions import AnsweredQuestion

Group = Literal["yes_no", "number", "other"]
"""VQAv2's kinds of answers."""

NAMES = ("", "_exact", "_yes_no", "_open", "_number", "_other", "_type_*")
"""Ends of the names that :func:`accuracies` gives; ``*`` stands for types of the data."""

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
    named, truth = _name(answered.answer_type), normalise(answered.truth)
    for group in get_args(Group):
        if named == group:
            return group  # type: ignore[no-any-return]  # one of the three
    if truth in ("yes", "no"):
        return "yes_no"
    return "number" if _NUMBER.fullmatch(truth) else "other"


def scores(answered: AnsweredQuestion, prefix: str) -> dict[str, float]:
    """Return what the answer to a question scores, by the metrics of which it counts in the mean.

    Soft accuracy as ``<prefix>``, ``_yes_no`` or ``_open``, ``_number`` or ``_other``, and
    ``_type_<name>`` of each type that the data names; exact match as ``_exact``.
    """
    group = group_of(answered)
    types = {_name(name) for name in (answered.question_type, answered.answer_type)}
    names = {f"_type_{name}" for name in types - {"", *get_args(Group)}}
    names |= {"", f"_{group}", "_yes_no" if group == "yes_no" else "_open"}
    soft = soft_accuracy(answered.answer, answered.answers or (answered.truth,))
    exact = float(normalise(answered.answer) == normalise(answered.truth))
    return {f"{prefix}{name}": soft for name in sorted(names)} | {f"{prefix}_exact": exact}


def accuracies(answered: Sequence[AnsweredQuestion], prefix: str) -> dict[str, float]:
    """Return the means of :func:`scores` over questions; groups without questions are left out.

    Where no answer is a number, ``_other`` is left out too: it would be ``_open``.
    """
    values: defaultdict[str, list[float]] = defaultdict(list)
    for one in answered:
        for name, value in scores(one, prefix).items():
            values[name].append(value)
    if f"{prefix}_number" not in values:
        values.pop(f"{prefix}_other", None)
    return {name: sum(own) / len(own) for name, own in sorted(values.items())}


def _name(text: str) -> str:
    """Return a name of the data as it stands in that of a metric."""
    return re.sub(r"\W+", "_", text.lower()).strip("_")
