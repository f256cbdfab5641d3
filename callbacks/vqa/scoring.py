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


def is_exact(answered: AnsweredQuestion) -> bool:
    """Tell whether the answer is the target, both normalised."""
    return normalise(answered.answer) == normalise(answered.truth)


def score(answered: AnsweredQuestion) -> float:
    """Return the soft accuracy of the answer to a question."""
    return soft_accuracy(answered.answer, answered.answers or (answered.truth,))


def group_of(answered: AnsweredQuestion) -> Group:
    """Return the kind of answer that the data names, or else that of the normalised target."""
    named, truth = _name(answered.answer_type), normalise(answered.truth)
    for group in get_args(Group):
        if named == group:
            return group  # type: ignore[no-any-return]  # one of the three
    if truth in ("yes", "no"):
        return "yes_no"
    return "number" if _NUMBER.fullmatch(truth) else "other"


def accuracies(answered: Sequence[AnsweredQuestion], prefix: str) -> dict[str, float]:
    """Return mean soft accuracies over all and over groups, and the share of exact matches.

    ``<prefix>``, ``_exact``, ``_yes_no`` and ``_open`` (all others); where there are answers that
    are numbers, ``_number`` and ``_other``; and ``_type_<name>`` of each type that the data names.
    Groups without questions are left out.
    """
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for one in answered:
        group = group_of(one)
        types = {_name(name) for name in (one.question_type, one.answer_type)}
        names = {f"_type_{name}" for name in types - {"", *get_args(Group)}}
        names |= {"", f"_{group}", "_yes_no" if group == "yes_no" else "_open"}
        for name in names:
            scores[name].append(score(one))
        scores["_exact"].append(float(is_exact(one)))
    if "_number" not in scores:
        scores.pop("_other", None)  # as _open
    return {f"{prefix}{name}": sum(own) / len(own) for name, own in sorted(scores.items())}


def _name(text: str) -> str:
    """Return a name of the data as it stands in that of a metric."""
    return re.sub(r"\W+", "_", text.lower()).strip("_")
