"""Choosing one of several pictures of a caption: by the model's own answers, or by likelihood."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

Way = Literal["first", "redrawn", "likelihood_equal", "likelihood", "answers"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The pictures of one caption, as many as of any other, in the order of their generation.

    Attributes:
        num_questions: Number of questions about each, at least 1.
        num_right: How many of them were answered rightly, of each picture.
        log_probs: Log-likelihood of each picture behind its caption.
    """

    num_questions: int
    num_right: Sequence[int]
    log_probs: Sequence[float]

    @property
    def num_drawn(self) -> int:
        """Pictures up to the first one with right answers alone; all if there is none."""
        rights = list(self.num_right)
        return rights.index(self.num_questions) + 1 if self.num_questions in rights else len(rights)

    def redrawn(self) -> int:
        """Return the best answered picture, the first of equal ones: none behind it is needed."""
        return max(range(self.num_drawn), key=lambda i: self.num_right[i])

    def likeliest(self, count: int) -> int:
        """Return the likeliest of the first so many pictures."""
        return max(range(count), key=lambda i: self.log_probs[i])

    def best_answered(self) -> int:
        """Return the best answered of all pictures, the likeliest of equal ones."""
        numbers = range(len(self.num_right))
        return max(numbers, key=lambda i: (self.num_right[i], self.log_probs[i]))


def choose(candidates: Sequence[Candidates]) -> dict[Way, list[int]]:
    """Return which picture of each caption is taken, in every way.

    ``likelihood_equal`` has exactly as many pictures to choose from as ``redrawn`` took, over all
    captions: each has its share of them, rounded down or up.
    """
    total, captions = sum(own.num_drawn for own in candidates), len(candidates)
    bounds = [total * i // captions for i in range(captions + 1)]
    shares = [end - begin for begin, end in pairwise(bounds)]
    return {
        "first": [0] * captions,
        "redrawn": [own.redrawn() for own in candidates],
        "likelihood_equal": [
            own.likeliest(share) for own, share in zip(candidates, shares, strict=True)
        ],
        "likelihood": [own.likeliest(len(own.log_probs)) for own in candidates],
        "answers": [own.best_answered() for own in candidates],
    }
