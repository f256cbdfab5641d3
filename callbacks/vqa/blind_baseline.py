"""Answers to questions by what is most frequent in training, without images."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from callbacks.vqa.normalisation import normalise
from pretzel.errors import NothingToMeasure


class BlindBaseline:
    """Answers a question by the majority answer that this very question has in training.

    Answers are normalised before they are counted. A question unknown from training gets the
    overall majority answer; of equally frequent answers the one that came first counts.

    Args:
        pairs: (question, answer) pairs of the training split, read once.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        overall, self._as_written = Counter[str](), Counter[str]()
        for question, answer in pairs:
            counts[question][normalise(answer)] += 1
            overall[normalise(answer)] += 1
            self._as_written[answer] += 1
        if not overall:
            raise NothingToMeasure("the training split has no questions")
        self._answers = {q: counter.most_common(1)[0][0] for q, counter in counts.items()}
        self._default = overall.most_common(1)[0][0]

    def frequent(self, count: int) -> list[str]:
        """Return so many of the most frequent answers, or all, as they are written."""
        return [answer for answer, _ in self._as_written.most_common(count)]

    def answer(self, question: str) -> str:
        """Return the majority answer."""
        return self._answers.get(question, self._default)
