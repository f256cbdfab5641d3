"""Plots as inline SVG: dots with intervals, and curves with bands. Colours come from the style."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from pretzel.ablation.report.cell_texts import number, shown
from pretzel.ablation.report.event_files import Band
from pretzel.ablation.report.table import ArmRow, Entry, MetricColumn

COLOURS = 8
"""Number of colours in the style; further arms repeat them with broken lines."""

_WIDTH = 420.0
_ROW = 26.0
_LETTER = 6.6


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Maps values onto a stretch of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.start + (value - self.low) / span * (self.end - self.start)

    def inside(self, value: float) -> float:
        return min(max(value, self.low), self.high)


def colour(index: int) -> str:
    """Return the classes that give an arm its colour and line."""
    return f"c{index % COLOURS}" + (" again" if index >= COLOURS else "")


def dots(column: MetricColumn, rows: Sequence[ArmRow]) -> str:
    """Draw one metric: a dot for each seed, the mean and its interval, one line for each arm.

    Intervals that are much wider than the dots are cut, and end in an arrow.
    """
    name = column.metric.name
    entries = [(i, row, row.entries[name]) for i, row in enumerate(rows)]
    values = [v for _, _, entry in entries for v in entry.values.values() if math.isfinite(v)]
    longest = max(len(row.arm) for row in rows)
    left = min(max(longest * _LETTER + 14, 60.0), 0.4 * _WIDTH)
    height = len(rows) * _ROW + 26.0
    parts = []
    if values:
        axis = _domain(values, entries, left)
        parts += _x_axis(axis, height - 26)
        base = next(entry for _, row, entry in entries if row.is_baseline)
        if base.own is not None and math.isfinite(base.own.mean):
            at = axis(axis.inside(base.own.mean))
            parts.append(
                f'<line class="base" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height - 26}"/>'
            )
    for index, row, entry in entries:
        y = (index + 0.5) * _ROW
        limit = int((left - 14) / _LETTER)
        label = row.arm if len(row.arm) <= limit else row.arm[: limit - 1] + "…"
        weight = ' class="strong"' if row.is_baseline else ""
        parts.append(f'<text x="0" y="{y + 4:.1f}"{weight}>{escape(label)}</text>')
        finite = any(math.isfinite(value) for value in entry.values.values())
        if finite:
            parts.append(_dot_row(axis, index, row, entry, y))
        if entry.own is None or not math.isfinite(entry.own.mean):
            why = entry.absence if entry.own is None else "mean: not a number"
            dots_left = finite and _middle(axis, entry) < (left + _WIDTH) / 2
            kind, x = ("faint end", _WIDTH) if dots_left else ("faint", left)
            parts.append(f'<text class="{kind}" x="{x:.0f}" y="{y + 4:.1f}">{escape(why)}</text>')
    label = f"{name}: every seed, mean and interval of each arm"
    return _svg(_WIDTH, height, label, parts)


def _domain(
    values: list[float], entries: Sequence[tuple[int, ArmRow, Entry]], left: float
) -> _Axis:
    low, high = min(values), max(values)
    pad = 0.3 * (high - low) or 0.1 * abs(high) or 1.0
    ends = [v for _, _, entry in entries if entry.own for v in _interval(entry)]
    return _Axis(
        low=max(low - pad, min([low, *ends]) - 0.05 * pad),
        high=min(high + pad, max([high, *ends]) + 0.05 * pad),
        start=left + 6,
        end=_WIDTH - 12,
    )


def _interval(entry: Entry) -> list[float]:
    own = entry.own
    if own is None or own.half_width is None or not math.isfinite(own.mean + own.half_width):
        return []
    return [own.mean - own.half_width, own.mean + own.half_width]


def _dot_row(axis: _Axis, index: int, row: ArmRow, entry: Entry, y: float) -> str:
    assert entry.own is not None
    parts = [f"<title>{escape(row.arm)}: {escape(shown(entry.own, row.done))}</title>"]
    ends = _interval(entry)
    if ends:
        low, high = (axis(axis.inside(end)) for end in ends)
        parts.append(f'<line class="ci" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
        for end, at, way in ((ends[0], low, -1), (ends[1], high, 1)):
            tip = axis.inside(end) == end
            path = f"M{at:.1f} {y - 4}V{y + 4}" if tip else _arrow(at, y, way)
            parts.append(f'<path class="ci" d="{path}"/>')
    for seed, value in entry.values.items():
        if math.isfinite(value):
            title = f"<title>{escape(row.arm)}, seed {seed}: {value:.6g}</title>"
            parts.append(
                f'<circle class="seed" cx="{axis(value):.1f}" cy="{y}" r="3">{title}</circle>'
            )
    if math.isfinite(entry.own.mean):
        parts.append(f'<circle class="mean" cx="{axis(entry.own.mean):.1f}" cy="{y}" r="4.5"/>')
    return f'<g class="{colour(index)}">{"".join(parts)}</g>'


def _middle(axis: _Axis, entry: Entry) -> float:
    """Return where on the drawing the dots of an entry are."""
    return float(np.mean([axis(v) for v in entry.values.values() if math.isfinite(v)]))


def _arrow(x: float, y: float, way: int) -> str:
    return f"M{x - way * 4:.1f} {y - 4}L{x:.1f} {y}L{x - way * 4:.1f} {y + 4}"


def lines(tag: str, bands: Sequence[tuple[int, str, Band]]) -> str:
    """Draw learning curves: the mean over seeds, and the band from the lowest to the highest.

    Args:
        tag: What is drawn.
        bands: Colour, arm and curve.
    """
    height, bottom, left = 230.0, 26.0, 48.0
    first = min(float(band.steps[0]) for _, _, band in bands)
    last = max(float(band.steps[-1]) for _, _, band in bands)
    x = _Axis(low=first, high=last if last > first else first + 1, start=left, end=_WIDTH - 8)
    low, high = _levels([band for _, _, band in bands], first + 0.05 * (last - first))
    y = _Axis(low=low, high=high, start=height - bottom, end=8.0)
    parts = []
    for tick in ticks(low, high, 4):
        at = f"{y(tick):.1f}"
        parts.append(f'<line class="rule" x1="{left}" x2="{_WIDTH - 8}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick end" x="{left - 6}" y="{y(tick) + 4:.1f}">{tick:g}</text>')
    for tick in ticks(x.low, x.high, 5):
        shown_tick = f"{tick / 1000:g}k" if abs(tick) >= 1000 else f"{tick:g}"
        parts.append(
            f'<text class="tick mid" x="{x(tick):.1f}" y="{height - 8}">{shown_tick}</text>'
        )
    identity = f"clip-{tag.encode().hex()}"
    parts.append(
        f'<clipPath id="{identity}"><rect x="{left}" y="2" width="{_WIDTH - left - 6}" '
        f'height="{height - bottom}"/></clipPath><g clip-path="url(#{identity})">'
    )
    for index, arm, band in bands:
        xs = [x(float(step)) for step in band.steps]
        up = [(a, y(float(v))) for a, v in zip(xs, band.high, strict=True)]
        down = [(a, y(float(v))) for a, v in zip(xs, band.low, strict=True)]
        mean = [(a, y(float(v))) for a, v in zip(xs, band.mean, strict=True)]
        seeds = "1 seed" if band.seeds == 1 else f"{band.seeds} seeds"
        title = f"<title>{escape(arm)}, {seeds}, last {number(float(band.mean[-1]))}</title>"
        area = f'<path class="band" d="{_path(up + down[::-1])}Z"/>' if band.seeds > 1 else ""
        curve = f'<path class="curve" d="{_path(mean)}"/>' if len(mean) > 2 else _marked(mean)
        parts.append(f'<g class="arm-{index} {colour(index)}">{title}{area}{curve}</g>')
    parts.append("</g>")
    return _svg(_WIDTH, height, f"{tag} by training step, mean and range over seeds", parts)


def _levels(bands: Sequence[Band], settled: float) -> tuple[float, float]:
    """Return the range of the vertical axis: what the first steps do may be cut."""
    long = [band for band in bands if len(band.steps) > 20]
    seen = [v for b in long for v in (*b.low[b.steps >= settled], *b.high[b.steps >= settled])]
    seen += [v for b in bands if len(b.steps) <= 20 for v in (*b.low, *b.high)]
    low, high = float(np.min(seen)), float(np.max(seen))
    pad = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - pad, high + pad


def _marked(points: Sequence[tuple[float, float]]) -> str:
    circles = "".join(f'<circle class="mean" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    return f'<path class="curve" d="{_path(points)}"/>{circles}'


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {min(max(y, -999), 9999):.1f}" for x, y in points)


def _x_axis(axis: _Axis, bottom: float) -> list[str]:
    parts = []
    for tick in ticks(axis.low, axis.high, 5):
        at = f"{axis(tick):.1f}"
        parts.append(f'<line class="rule" x1="{at}" x2="{at}" y1="0" y2="{bottom}"/>')
        parts.append(f'<text class="tick mid" x="{at}" y="{bottom + 17}">{tick:g}</text>')
    return parts


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers in a range, at most ``most`` + 1 of them: multiples of 1, 2 or 5."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    digits = max(0, 1 - math.floor(math.log10(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, digits) + 0.0 for i in range(first, last + 1)]


def _svg(width: float, height: float, label: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
