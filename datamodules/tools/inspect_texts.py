"""The figures of an inspection as rows of text, the same on a terminal and on a page."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from datamodules.sources.source import Split
from datamodules.tools.cards import Card, Run
from datamodules.tools.summary import Pick, Summary

Number = TypeVar("Number", int, float)

_NUM_BARS = 12
_QUESTIONS = 3  # of a sample that is shown
_YES_NO = ("yes", "no")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a distribution: what is counted, how often, and its share."""

    label: str
    count: int
    share: float


def fact_rows(summaries: Mapping[Split, Summary]) -> list[tuple[str, ...]]:
    """Return a row for each figure: its name, then its value in each split."""
    facts: list[tuple[str, Callable[[Summary], str]]] = [
        ("samples", lambda s: f"{s.samples:,}"),
        ("skipped", lambda s: f"{s.skipped.total():,}"),
        ("interleaved documents", lambda s: f"{s.documents:,}" if s.documents else ""),
        ("megabytes", lambda s: f"{s.num_bytes / 1e6:,.1f}"),
        ("shorter side, pixels", lambda s: _spread(_shorter_sides(s))),
        ("aspect, width to height", _aspects),
        ("with a caption", lambda s: _share(s.caption_words.total(), s.samples)),
        ("words of a caption", lambda s: _spread(s.caption_words)),
        ("with questions", lambda s: _share(s.samples - s.documents - s.questions[0], s.samples)),
        ("questions", lambda s: f"{_num_questions(s):,}"),
        ("different answers", _num_answers),
        ("answers yes or no", _yes_no),
    ]
    rows = [(name, *(text(summary) for summary in summaries.values())) for name, text in facts]
    return [row for row in rows if any(row[1:])]


def bars(counter: Counter[str], uncounted: int = 0) -> list[Bar]:
    """Return the most frequent entries, the rest as one, with those that were not counted apart."""
    total = counter.total() + uncounted
    common = sorted(counter.items(), key=lambda one: (-one[1], one[0]))[:_NUM_BARS]
    rest = total - sum(count for _, count in common)
    if rest:
        common.append(("others", rest))
    return [Bar(label=label, count=count, share=count / total) for label, count in common]


def size_bars(summary: Summary) -> list[Bar]:
    """Return the distribution of the shorter side in octaves."""
    octaves: Counter[int] = Counter()
    for side, count in _shorter_sides(summary).items():
        octaves[1 << (side - 1).bit_length()] += count
    total = octaves.total()
    return [
        Bar(label=f"{top // 2 + 1} to {top} pixels", count=octaves[top], share=octaves[top] / total)
        for top in sorted(octaves)
    ]


def card_of(pick: Pick) -> Card:
    """Return a sample as a card of a sheet."""
    runs = [Run(text=text) for text in pick.texts]
    for question, answer in pick.questions[:_QUESTIONS]:
        runs += [Run(text=question, style="note"), Run(text=answer, style="target")]
    if len(pick.questions) > _QUESTIONS:
        runs.append(Run(text=f"{len(pick.questions) - _QUESTIONS} more questions", style="note"))
    return Card(parts=(*pick.pictures[:4], *runs, Run(text=pick.key, style="note")))


def _shorter_sides(summary: Summary) -> Counter[int]:
    sides: Counter[int] = Counter()
    for size, count in summary.sizes.items():
        sides[min(size)] += count
    return sides


def _aspects(summary: Summary) -> str:
    aspects: Counter[float] = Counter()
    for (width, height), count in summary.sizes.items():
        aspects[width / height] += count
    if not aspects:
        return ""
    low, middle, high = (f"{value:.2f}" for value in _quantiles(aspects))
    return low if low == high else f"{low} to {high}, median {middle}"


def _spread(counter: Counter[int]) -> str:
    if not counter:
        return ""
    low, middle, high = _quantiles(counter)
    return str(low) if low == high else f"{low} to {high}, median {middle}"


def _quantiles(counter: Mapping[Number, int]) -> tuple[Number, Number, Number]:
    """Return minimum, median and maximum of counted values."""
    half, seen = sum(counter.values()) / 2, 0
    for value in sorted(counter):
        seen += counter[value]
        if seen >= half:
            return min(counter), value, max(counter)
    raise AssertionError("an empty counter")


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.0%})" if count and total else ""


def _num_questions(summary: Summary) -> int:
    return sum(number * count for number, count in summary.questions.items())


def _num_answers(summary: Summary) -> str:
    more = " or more" if summary.uncounted_answers else ""
    return f"{len(summary.answers):,}{more}" if summary.answers else ""


def _yes_no(summary: Summary) -> str:
    answers = summary.answers.items()
    count = sum(count for answer, count in answers if answer.strip().lower() in _YES_NO)
    return _share(count, summary.answers.total() + summary.uncounted_answers)
