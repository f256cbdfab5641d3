"""The HTML page: one self-contained file without network or script, for light and dark screens."""

import contextlib
import platform
import re
from importlib import metadata
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pretzel.ablation.ledger import State
from pretzel.ablation.report import cell_texts, charts, event_files, item_texts, table_notes
from pretzel.ablation.report.comparison import Comparison
from pretzel.ablation.report.item_examples import item_examples
from pretzel.ablation.report.learning_curves import learning_curves
from pretzel.ablation.report.sample_sheets import sample_sheets
from pretzel.ablation.report.table import ResultTable

MOST_CURVES = 30
_LIBRARIES = ("torch", "lightning", "numpy", "scipy", "tensorboard", "matplotlib")


def page(table: ResultTable, command: str) -> str:
    """Return the page that a command makes, filled into ``page.html.j2`` beside this file."""
    comparison = table.comparison
    events = {
        run.name: event_files.read(comparison.output / run.name)
        for run in comparison.runs
        if run.state is not State.STALE
    }
    curves, curves_left_out = learning_curves(comparison, events, MOST_CURVES)
    differences: dict[str, list[list[str]]] = {}
    for metric, *texts in cell_texts.difference_lines(table)[1:]:
        differences.setdefault(metric, []).append(texts)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": _breakable, "minus": _minus, "hue": charts.hue}
    return environment.get_template("page.html.j2").render(
        table=table,
        name=Path(comparison.grid).stem or comparison.output.name,
        lead=_lead(comparison),
        texts=cell_texts,
        item_texts=item_texts,
        examples=item_examples(comparison, table.items),
        notes=table_notes,
        differences=differences,
        curves=curves,
        curves_left_out=curves_left_out,
        sheets=sample_sheets(comparison, events),
        origin=_origin(comparison),
        command=command,
        # Charts are SVG elements whose text matplotlib has escaped.
        dots=lambda *args: Markup(charts.dots(*args)),
        lines=lambda *args: Markup(charts.lines(*args)),
        colours=charts.COLOURS,
    )


def _lead(comparison: Comparison) -> str:
    seeds = "1 seed" if len(comparison.seeds) == 1 else f"{len(comparison.seeds)} seeds"
    arms = "1 arm" if len(comparison.arms) == 1 else f"{len(comparison.arms)} arms"
    states = [run.state for run in comparison.runs]
    lead = f"{arms}, {seeds}; {states.count(State.DONE)} of {len(states)} runs done"
    failed = states.count(State.FAILED)
    return f"{lead}, {failed} failed." if failed else f"{lead}."


def _breakable(text: str) -> Markup:
    """Return a name that may be broken at its joints."""
    return Markup(re.sub(r"([/_+.])", r"\1<wbr>", str(escape(text))))


def _minus(number: str) -> str:
    """Return a number with a minus sign instead of a hyphen."""
    return re.sub(r"(?<!\w)-(?=[\d.])", "−", number)  # noqa: RUF001


def _origin(comparison: Comparison) -> dict[str, str]:
    """Return where the figures come from: grid, folder, seeds and the versions of libraries."""
    trained: dict[str, dict[str, None]] = {}
    for run in comparison.runs:
        for name, version in run.versions.items():
            trained.setdefault(name, {})[version] = None
    here = {"python": platform.python_version()}
    for library in ("pretzel-starflow", *_LIBRARIES):
        with contextlib.suppress(metadata.PackageNotFoundError):  # we may run from a checkout
            here[library] = metadata.version(library)
    return {
        "Grid": comparison.grid,
        "Folder": str(comparison.output),
        "Seeds": ", ".join(map(str, comparison.seeds)),
        "Trained with": ", ".join(f"{n} {' and '.join(v)}" for n, v in trained.items()),
        "Page made with": ", ".join(f"{n} {v}" for n, v in here.items()),
    }
