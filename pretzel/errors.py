"""Errors that users see as one sentence."""

import difflib
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """A user's mistake: the message names the argument or file, the rule and the value.

    The command line prints the message alone and exits with code 2; from Python it is an
    ordinary ``ValueError``.
    """


class NotApplicable(UserError):
    """A question that does not exist for a choice of parts: a stage that a model does not have.

    A mistake in a single run; n/a in a grid, where it is the arm's answer.
    """


class NothingToMeasure(UserError):
    """Data without that which a metric is about: a split, captions, questions.

    A callback of a run says it once and measures nothing; the run goes on.
    """


def did_you_mean(name: str, candidates: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """Return ``; did you mean '...'?`` for the nearest candidate as it is to be shown, or ""."""
    near = difflib.get_close_matches(name, sorted(set(candidates)), n=1, cutoff=0.6)
    return f"; did you mean '{shown(near[0])}'?" if near else ""
