"""Charts as inline SVG by matplotlib: every seed of a metric, and learning curves."""

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from matplotlib.typing import LineStyleType

from pretzel.ablation.report.cell_texts import mean_text, number
from pretzel.ablation.report.learning_curves import Band, Curves
from pretzel.ablation.report.table import ArmRow, Entry, MetricColumn

COLOURS = 8
"""Number of colours in the style sheet; further arms repeat them with broken lines."""

_WIDTH = 5.6  # inches; the page scales it
_LABEL_LETTERS = 22
_STEPS = [1, 2, 5, 10]  # of axes: round ones
# Colours that stand for variables of the style sheet, so that a chart is light or dark as its page.
_SOFT, _RULE, _HUE = "#fe0001", "#fe0002", "#fe01{:02x}"
_VARIABLES = {_SOFT: "var(--soft)", _RULE: "var(--rule)"} | {
    _HUE.format(i): f"var(--hue-{i})" for i in range(COLOURS)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: found by a search, in the font of the page
    "text.parse_math": False,  # a name with dollar signs is no formula
    "font.size": 11,
    "text.color": _SOFT,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.bottom": False,
    "ytick.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": _RULE,
} | {f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")}


def hue(index: int) -> int:
    """Return the number of an arm's colour in the style sheet."""
    return index % COLOURS


def _line_style(index: int) -> LineStyleType:
    return "-" if index < COLOURS else (0, (4, 2))


def dots(column: MetricColumn, rows: Sequence[ArmRow]) -> str:
    """Plot one metric: a dot for each seed, the mean and its interval, one line for each arm.

    Intervals that are much wider than the dots are cut, and end in an arrow.
    """
    name = column.metric.name
    entries = [row.entries[name] for row in rows]
    tooltips: dict[int, str] = {}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.34 * len(rows) + 0.4))
        longest = min(max(len(row.arm) for row in rows), _LABEL_LETTERS)
        axes = _axes(figure, left=0.15 + 0.087 * longest, bottom=0.32)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_yticks(range(len(rows)), [_shortened(row.arm) for row in rows])
        for text, row in zip(axes.get_yticklabels(), rows, strict=True):
            text.set(color="black", fontweight="bold" if row.is_baseline else "normal")
        values = [value for entry in entries for value in _finite(entry)]
        if values:
            axes.set_xlim(*_range_of_dots(values, entries))
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
        else:
            axes.set_xticks([])
        for index, (row, entry) in enumerate(zip(rows, entries, strict=True)):
            _plot_arm(axes, index, entry)
            if row.is_baseline and entry.own and math.isfinite(entry.own.mean):
                axes.axvline(entry.own.mean, color=_SOFT, linewidth=1, linestyle=(0, (2, 3)))
            if entry.own:
                seeds = "; ".join(f"seed {s}: {value:.6g}" for s, value in entry.values.items())
                tooltips[index] = f"{row.arm}: {mean_text(entry.own, row.done)} ({seeds})"
        return _inline(figure, f"{name}: every seed, mean and interval of each arm", tooltips)


def _plot_arm(axes: Axes, index: int, entry: Entry) -> None:
    finite, (low, high) = _finite(entry), sorted(axes.get_xlim())
    style: dict[str, Any] = {"color": _HUE.format(hue(index)), "gid": f"arm-{index}"}
    dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "markeredgewidth": 0, **style}
    if (interval := _interval(entry)) is not None:
        ends = np.clip(interval, low, high)
        axes.plot(ends, [index, index], linewidth=1.4, linestyle=_line_style(index), **style)
        for end, cut, arrow in zip(ends, interval, "<>", strict=True):
            marker = "|" if end == cut else arrow
            axes.plot(end, index, marker, markersize=6, clip_on=False, **style)
    axes.plot(finite, [index] * len(finite), markersize=5, alpha=0.4, **dot)
    if entry.own is None or not math.isfinite(entry.own.mean):
        reason = entry.absence if entry.own is None else "mean: not a number"
        right = bool(finite) and float(np.mean(finite)) < (low + high) / 2  # beside the dots
        axes.annotate(
            reason,
            (float(right), index),
            xycoords=("axes fraction", "data"),
            horizontalalignment="right" if right else "left",
            verticalalignment="center",
        )
    else:
        axes.plot(entry.own.mean, index, markersize=7, **dot)


def _range_of_dots(values: Sequence[float], entries: Sequence[Entry]) -> tuple[float, float]:
    """Return the ends of the horizontal axis: dots with a margin, what fits of intervals."""
    low, high = min(values), max(values)
    margin = 0.3 * (high - low) or 0.1 * abs(high) or 1.0
    ends = [end for entry in entries for end in _interval(entry) or ()]
    return (
        max(low - margin, min([low, *ends]) - 0.05 * margin),
        min(high + margin, max([high, *ends]) + 0.05 * margin),
    )


def _finite(entry: Entry) -> list[float]:
    return [value for value in entry.values.values() if math.isfinite(value)]


def _interval(entry: Entry) -> tuple[float, float] | None:
    own = entry.own
    if own is None or own.half_width is None or not math.isfinite(own.mean + own.half_width):
        return None
    return own.mean - own.half_width, own.mean + own.half_width


def lines(curves: Curves) -> str:
    """Plot learning curves: the mean over seeds, and the band from the lowest to the highest."""
    tooltips = {}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 3.0))
        axes = _axes(figure, left=0.72, bottom=0.32)
        for arm, band in curves.bands.items():
            index = curves.places[arm]
            style: dict[str, Any] = {"color": _HUE.format(hue(index)), "gid": f"arm-{index}"}
            if band.seeds > 1:
                axes.fill_between(band.steps, band.low, band.high, alpha=0.14, linewidth=0, **style)
            axes.plot(
                band.steps,
                band.mean,
                linewidth=1.6,
                linestyle=_line_style(index),
                marker="o" if len(band.steps) < 3 else "",
                markersize=4,
                **style,
            )
            seeds = "1 seed" if band.seeds == 1 else f"{band.seeds} seeds"
            tooltips[index] = f"{arm}, {seeds}, last {number(float(band.mean[-1]))}"
        axes.set_ylim(*_settled_levels([*curves.bands.values()]))
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
        axes.grid(visible=False, axis="x")
        label = f"{curves.tag} by training step, mean and range over seeds"
        return _inline(figure, label, tooltips)


def _settled_levels(bands: Sequence[Band]) -> tuple[float, float]:
    """Return the ends of the vertical axis: in long curves, what the first 5 % do may be cut."""
    first = min(float(band.steps[0]) for band in bands)
    settled = first + 0.05 * (max(float(band.steps[-1]) for band in bands) - first)
    parts = []
    for band in bands:
        kept = band.steps >= (settled if len(band.steps) > 20 else first)
        parts += [band.low[kept], band.high[kept]]
    levels = np.concatenate(parts)
    low, high = float(levels.min()), float(levels.max())
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _axes(figure: Figure, left: float, bottom: float) -> Axes:
    """Return axes with margins in inches."""
    width, height = figure.get_size_inches()
    left, bottom = left / width, bottom / height
    return figure.add_axes((left, bottom, 0.96 - left, 0.97 - bottom))


def _shortened(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _LABEL_LETTERS else f"{name[: _LABEL_LETTERS - 1]}…"


def _inline(figure: Figure, label: str, tooltips: Mapping[int, str]) -> str:
    """Return a figure as an SVG element that stands in a page beside others.

    Artists whose gid is ``arm-I`` belong to the arm at that place and get its tooltip; ``label`` is
    for those who cannot see the figure.
    """
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": label}), warnings.catch_warnings():
        # The page has the browser's fonts: that matplotlib's own lacks a letter does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # Metadata, a style for the whole page, empty groups, and fonts, which are those of the page.
    unused = r'<metadata>.*?</metadata>|<style.*?</style>|<g id="[^"]*"/>'
    svg = re.sub(unused, "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+| \n", r"\1", path[0]), svg)

    def group(match: re.Match[str]) -> str:
        """Return the start of a group: names of groups repeat in every chart, so they go."""
        kind, _, index = match[1].partition("-")
        if kind != "arm":
            return "<g>"
        return f'<g class="arm-{index}"><title>{escape(tooltips.get(int(index), ""))}</title>'

    svg = re.sub(r'<g id="([^"]*)">', group, svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None, "matplotlib writes a viewBox"
    body = svg[svg.index(">") + 1 :]
    return f'<svg {size[0]} role="img" aria-label="{escape(label)}">{body}'
