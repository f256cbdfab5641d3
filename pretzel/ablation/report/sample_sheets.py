"""The parts of the page that come from the runs' event files: learning curves and pictures."""

import base64
import io
from html import escape

from PIL import Image, UnidentifiedImageError

from pretzel.ablation.ledger import State
from pretzel.ablation.report import charts
from pretzel.ablation.report.comparison import Comparison, RunResult
from pretzel.ablation.report.event_files import Band, Events, Picture, band, read
from pretzel.ablation.report.table import NOT_APPLICABLE

FIRST_CURVES, MOST_CURVES = 6, 30
AS_LOGGED_BYTES, MOST_BYTES = 6_000_000, 20_000_000
"""Pictures stay as they were logged up to the first size; beyond the second, seeds are left out."""

_SAMPLES = ("test/samples", "val/samples")


def read_all(comparison: Comparison) -> dict[str, Events]:
    """Return what each cell has logged, by name; of a stale one nothing."""
    return {
        cell.name: read(comparison.output / cell.name)
        for cell in comparison.runs
        if cell.state is not State.STALE
    }


def curves(comparison: Comparison, events: dict[str, Events]) -> str:
    """Return the learning curves; empty where nothing was logged twice."""
    drawn = []
    for tag in _tags(comparison, events):
        bands = []
        for index, arm in enumerate(comparison.arms):
            own = [events[c.name] for c in comparison.by_arm[arm] if c.name in events]
            if (found := band([e.scalars.get(tag, {}) for e in own])) is not None:
                bands.append((index, arm, found))
        if bands:
            drawn.append(_curve(tag, bands))
    if not drawn:
        return "<p class='soft'>No scalar was logged more than once.</p>"
    legend = "".join(
        f'<label class="{charts.colour(i)}"><input type="checkbox" id="show-{i}" checked>'
        f'<span class="key"></span>{escape(arm)}</label>'
        for i, arm in enumerate(comparison.arms)
    )
    more = drawn[FIRST_CURVES:MOST_CURVES]
    left_out = len(drawn) - FIRST_CURVES - len(more)
    told = f"<p class='soft'>{left_out} further scalars are in TensorBoard.</p>"
    return (
        "<p class='soft'>The line is the mean over seeds, the band reaches from the lowest to the "
        "highest; long runs are averaged between points. Failed and unfinished cells count as far "
        "as they got.</p>"
        f'<div class="legend">{legend}</div><div class="grid">{"".join(drawn[:FIRST_CURVES])}</div>'
        + (
            f"<details><summary>{len(more)} more curves</summary>"
            f'<div class="grid">{"".join(more)}</div></details>'
            if more
            else ""
        )
        + (told if left_out > 0 else "")
    )


def _tags(comparison: Comparison, events: dict[str, Events]) -> list[str]:
    """Return the scalars worth a curve: losses first, then the table's metrics in validation."""
    table = {metric.name.rpartition("/")[2] for metric in comparison.metrics}
    tags = {t for e in events.values() for t, points in e.scalars.items() if len(points) > 1}

    def rank(tag: str) -> tuple[int, str]:
        stage, _, name = tag.rpartition("/")
        if stage == "train":
            return (0 if name == "loss" else 2), tag
        return (1 if name in table else 3), tag

    plain = (t for t in tags if not t.startswith("lr-") and t not in ("epoch", "hp_metric"))
    counts = ("_n", "_n_real")
    return sorted((tag for tag in plain if not tag.endswith(counts)), key=rank)


def _curve(tag: str, bands: list[tuple[int, str, Band]]) -> str:
    return f"<figure><h3>{escape(tag)}</h3>{charts.lines(tag, bands)}</figure>"


def samples(comparison: Comparison, events: dict[str, Events]) -> str:
    """Return the last sample sheets, the arms of one seed side by side; empty without any.

    Pictures are drawn at noise that depends on the seed alone, so that within a seed the same
    picture of every arm has the same noise.
    """
    tag = _sample_tag(events)
    if tag is None:
        return ""
    sheets = {n: e.pictures[tag] for n, e in events.items() if tag in e.pictures}
    small = sum(len(sheet.encoded) for sheet in sheets.values()) > AS_LOGGED_BYTES
    parts: list[str] = []
    left_out: list[str] = []
    size = 0
    for seed in comparison.seeds:
        cells = [cell for cell in comparison.runs if cell.seed == seed]
        shown = {c.name: _source(sheets[c.name], small) for c in cells if c.name in sheets}
        if not shown:
            continue
        size += sum(map(len, shown.values()))
        if parts and size > MOST_BYTES:
            left_out.append(f"seed {seed}")
            continue
        figures = "".join(
            _sheet(comparison, arm, seed, cells, shown, sheets) for arm in comparison.arms
        )
        opened = "" if parts else " open"
        parts.append(
            f'<details{opened}><summary>Seed {seed}</summary><div class="sheets">{figures}</div>'
            "</details>"
        )
    told = f"<code>{escape(tag)}</code>: within a seed, the same place has the same noise. "
    told += "A click enlarges a sheet."
    if small:
        told += " Compressed with losses; as they were logged, they are in TensorBoard."
    if left_out:
        told += f" Left out, to keep the page small: {', '.join(left_out)}."
    return f"<p class='soft'>{told}</p>{''.join(parts)}"


def _sample_tag(events: dict[str, Events]) -> str | None:
    tags = {tag for e in events.values() for tag in e.pictures}
    named = [tag for tag in _SAMPLES if tag in tags]
    return next(iter(named or sorted(tags)), None)


def _sheet(
    comparison: Comparison,
    arm: str,
    seed: int,
    cells: list[RunResult],
    shown: dict[str, str],
    sheets: dict[str, Picture],
) -> str:
    cell = next((cell for cell in cells if cell.arm == arm), None)
    tag = ' <span class="tag">baseline</span>' if arm == comparison.baseline else ""
    if cell is not None and cell.name in shown:
        body = (
            f'<label><input type="checkbox"><img src="{shown[cell.name]}" '
            f'alt="samples of {escape(arm)} at seed {seed}"></label>'
            f"<figcaption>step {sheets[cell.name].step}</figcaption>"
        )
    else:
        state = NOT_APPLICABLE if cell is None else f"no picture ({cell.state.value})"
        why = "" if cell is None or not cell.trouble else f": {cell.trouble}"
        body = f'<div class="none">{escape(state + why)}</div>'
    return f"<figure><h3>{escape(arm)}{tag}</h3>{body}</figure>"


def _source(picture: Picture, small: bool) -> str:
    """Return a picture as a data address, as it was logged or compressed."""
    data = picture.encoded
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "gif" if data.startswith(b"GIF") else "png"
    if small:
        try:
            with Image.open(io.BytesIO(data)) as image:
                compressed = io.BytesIO()
                image.convert("RGB").save(compressed, "WEBP", quality=90)
            data, kind = compressed.getvalue(), "webp"
        except (UnidentifiedImageError, OSError):
            pass  # shown as it is
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
