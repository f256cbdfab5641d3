"""One self-contained page: no network, no other file, no script; light and dark."""

import platform
import re
from html import escape
from importlib import metadata
from pathlib import Path

from pretzel.ablation.ledger import State
from pretzel.ablation.report import cell_texts, charts, sample_sheets, table_notes
from pretzel.ablation.report.comparison import Comparison
from pretzel.ablation.report.event_files import Events
from pretzel.ablation.report.style import STYLE, hiding
from pretzel.ablation.report.table import NOT_APPLICABLE, ArmRow, Entry, MetricColumn, ResultTable
from pretzel.ablation.report.tuning import ArmTuning

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LIBRARIES = ("pretzel", "torch", "lightning", "numpy", "scipy", "tensorboard")


def page(summary: ResultTable, events: dict[str, Events], command: str) -> str:
    """Return the page.

    Args:
        summary: The table.
        events: What each cell has logged, by its name.
        command: The command that makes this page.
    """
    c = summary.comparison
    title = f"{Path(c.grid).stem or c.output.name}: ablation"
    sections = {
        "results": ("Results", _results(summary)),
        "metrics": ("Every seed", _plots(summary)),
        "differences": ("Differences to the baseline", _differences(summary)),
        "curves": ("Learning curves", sample_sheets.curves(c, events)),
        "samples": ("Samples at the same noise", sample_sheets.samples(c, events)),
        "changes": ("What each arm changes", _changes(c)),
        "tuning": ("What was tuned before the comparison", _tuning(c)),
        "missing": ("What is missing", _missing(c)),
        "origin": ("How this was made", _origin(summary, command)),
    }
    sections = {name: (head, body) for name, (head, body) in sections.items() if body}
    links = "".join(f'<a href="#{name}">{head}</a>' for name, (head, _) in sections.items())
    body = "".join(
        f'<section id="{name}"><h2>{head}</h2>{inner}</section>'
        for name, (head, inner) in sections.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{hiding(len(c.arms))}</style></head>"
        f"<body><main>{_header(summary)}<nav>{links}</nav>{body}</main></body></html>\n"
    )


def _header(summary: ResultTable) -> str:
    c = summary.comparison
    done = sum(cell.state is State.DONE for cell in c.runs)
    seeds = "1 seed" if len(c.seeds) == 1 else f"{len(c.seeds)} seeds"
    arms = "1 arm" if len(c.arms) == 1 else f"{len(c.arms)} arms"
    lead = f"{arms}, {seeds}; {done} of {len(c.runs)} cells done"
    failed = sum(cell.state is State.FAILED for cell in c.runs)
    lead += f", {failed} failed" if failed else ""
    told = _say("", table_notes.reach(summary)) + _say(" warn", table_notes.incomparable(summary))
    name = escape(Path(c.grid).stem or c.output.name)
    return (
        f'<header><h1>{name}</h1><p class="lead">{lead}. Baseline: {escape(c.baseline)}.</p>'
        f"{told}</header>"
    )


def _say(kind: str, told: list[str]) -> str:
    inner = "".join(f"<p>{escape(note)}</p>" for note in told)
    return f'<div class="say{kind}">{inner}</div>' if told else ""


def _name(text: str) -> str:
    """Return a name that may be broken at its joints."""
    return re.sub(r"([/_+.])", r"\1<wbr>", escape(text))


def _results(summary: ResultTable) -> str:
    heads = [
        f"{_name(column.metric.name)}\u00a0{column.metric.arrow}"
        + ("" if column.scale.everywhere else f" {cell_texts.INCOMPARABLE}")
        for column in summary.columns
    ]
    head = "".join(f"<th>{cell}</th>" for cell in ["arm", "n", *heads, *cell_texts.COST_HEADS])
    body = "".join(_row(row, summary.columns) for row in summary.rows)
    reading = "".join(
        f'<p class="soft">{escape(note)}</p>' for note in table_notes.reading(summary)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"</div><details><summary>How to read it</summary>{reading}</details>"
    )


def _row(row: ArmRow, columns: tuple[MetricColumn, ...]) -> str:
    tag = ' <span class="tag">baseline</span>' if row.is_baseline else ""
    count = row.counted.partition(" (")
    missing = f'<small class="missing">{escape(count[2][:-1])}</small>' if count[2] else ""
    means = "".join(_mean(row, row.entries[column.metric.name]) for column in columns)
    costs = "".join(f"<td>{_cost(cost)}</td>" for cost in cell_texts.costs(row))
    kind = ' class="baseline"' if row.is_baseline else ""
    return (
        f'<tr{kind}><th scope="row">{_name(row.arm)}{tag}</th><td>{escape(count[0])}{missing}</td>'
        f"{means}{costs}</tr>"
    )


def _cost(shown: str) -> str:
    first, _, frozen = escape(shown).partition(" + ")
    return f"{first}<small>+ {frozen}</small>" if frozen else first


def _mean(row: ArmRow, entry: Entry) -> str:
    shown = escape(cell_texts.value(entry, row))
    if entry.own is None:
        kind = "soft" if entry.absence == NOT_APPLICABLE else "missing"
        return f'<td class="{kind}">{shown}</td>'
    mean, _, interval = shown.partition(" ± ")
    shown = f'<span class="best">{mean}</span>' if entry.best else mean
    shown += f" ± {interval}" if interval else ""
    if entry.significant:
        shown += f" {cell_texts.SIGNIFICANT}"
    under = ""
    if not row.is_baseline:
        change = cell_texts.change(entry, row)
        told = "not comparable" if change == cell_texts.INCOMPARABLE else f"Δ {change}"
        under = f"<small>{_minus(told)}</small>"
    return f"<td>{shown}{under}</td>"


def _minus(shown: str) -> str:
    """Return a number with a minus sign instead of a hyphen."""
    return re.sub(r"(?<!\w)-(?=[\d.])", "−", escape(shown))  # noqa: RUF001


def _plots(summary: ResultTable) -> str:
    figures = []
    for column in summary.columns:
        mark = "" if column.scale.everywhere else '<span class="tag warn">not comparable ‡</span>'
        name = f"{escape(column.metric.name)} {column.metric.arrow} {mark}"
        facts = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in column.scale.facts.items())
        caption = f"<figcaption>{escape(facts)}</figcaption>" if facts else ""
        figures.append(
            f"<figure><h3>{name}</h3>{charts.dots(column, summary.rows)}{caption}</figure>"
        )
    return (
        "<p class='soft'>A dot for each seed, the mean, and its 95% t interval. An arrow: the "
        "interval goes on. The dotted line is the baseline's mean.</p>"
        f'<div class="grid">{"".join(figures)}</div>'
    )


def _differences(summary: ResultTable) -> str:
    lines = cell_texts.difference_lines(summary)
    if not lines:
        return ""
    head = "".join(f"<th{_left(name)}>{escape(name)}</th>" for name in cell_texts.DIFFERENCE_HEADS)
    bodies: dict[str, str] = {}
    for metric, arm, *numbers, verdict in lines:
        name = _name(metric).replace(" ", "\u00a0") if metric not in bodies else ""
        cells = "".join(f"<td>{_minus(cell)}</td>" for cell in numbers)
        good = "tag good" if verdict == "significant" else "soft"
        bodies[metric] = bodies.get(metric, "") + (
            f'<tr><th scope="row">{name}</th><td class="name">{_name(arm)}</td>{cells}'
            f'<td class="name"><span class="{good}">{escape(verdict)}</span></td></tr>'
        )
    body = "".join(f"<tbody>{rows}</tbody>" for rows in bodies.values())
    return (
        '<div class="scroll"><table class="long">'
        f"<thead><tr>{head}</tr></thead>{body}</table></div>"
    )


def _left(head: str) -> str:
    return ' class="name"' if head in ("metric", "arm", "verdict") else ""


def _changes(comparison: Comparison) -> str:
    axes = [*comparison.axes]
    head = "".join(f"<th class='name'>{escape(name)}</th>" for name in ["arm", *axes])
    body = ""
    for arm, changes in comparison.arms.items():
        choices = "".join(
            f"<td class='name'>{_name(comparison.choices[arm].get(axis, ''))}</td>" for axis in axes
        )
        told = "".join(f"<li><code>{escape(change)}</code></li>" for change in changes)
        told = f"<ul class='plain'>{told}</ul>" if told else "<span class='soft'>nothing</span>"
        if arm == comparison.baseline:
            told = "<span class='soft'>the baseline</span>"
        body += f'<tr><th scope="row">{_name(arm)}</th>{choices}<td class="wrap">{told}</td></tr>'
    return (
        f'<div class="scroll"><table><thead><tr>{head}<th class="wrap">against the baseline</th>'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _tuning(comparison: Comparison) -> str:
    body = "".join(
        f'<tr><th scope="row">{_name(arm)}</th>'
        f'<td class="wrap">{escape(one.link and f"{one.link}: ")}'
        f"{escape(one.winners_told(len(comparison.by_arm[arm])))}</td>"
        f"<td>{len(one.trials)}</td>"
        f'<td class="name">{_name(one.metric)}\u00a0{one.arrow}</td>'
        f'<td class="wrap"><ul class="plain">{_trials(one)}</ul></td></tr>'
        for arm, all_tuned in comparison.tuned.items()
        for one in all_tuned
    )
    if not body:
        return ""
    *_, told = table_notes.tuned(comparison)
    return (
        '<div class="scroll"><table><thead><tr><th class="name">arm</th><th class="wrap">chosen'
        '</th><th>candidate runs</th><th class="name">by</th><th class="wrap">tried</th></tr>'
        f'</thead><tbody>{body}</tbody></table></div><p class="soft">{escape(told)}. They ran at '
        "a seed that is not compared, and saw no test.</p>"
    )


def _trials(one: ArmTuning) -> str:
    return "".join(
        f"<li>{_bold(escape(f'{trial.label}: {trial.told}'), trial.label in one.winners)}</li>"
        for trial in one.trials
    )


def _bold(text: str, is_bold: bool) -> str:
    return f'<span class="best">{text}</span>' if is_bold else text


def _missing(comparison: Comparison) -> str:
    told = "".join(f"<li>{escape(note)}</li>" for note in table_notes.missing(comparison))
    return f"<ul>{told}</ul>" if told else ""


def _origin(summary: ResultTable, command: str) -> str:
    c = summary.comparison
    trained: dict[str, list[str]] = {}
    for cell in c.runs:
        for name, version in cell.versions.items():
            if version not in (seen := trained.setdefault(name, [])):
                seen.append(version)
    here = {"python": platform.python_version()} | {n: _version(n) for n in _LIBRARIES}
    facts = {
        "Grid": f"<code>{escape(c.grid)}</code>",
        "Folder": f"<code>{escape(str(c.output))}</code>",
        "Seeds": escape(", ".join(map(str, c.seeds))),
        "Trained with": escape(", ".join(f"{n} {' and '.join(v)}" for n, v in trained.items())),
        "Page made with": escape(", ".join(f"{n} {v}" for n, v in here.items() if v)),
    }
    if provenance := table_notes.provenance(summary):
        facts["Computed from"] = "<br>".join(escape(note) for note in provenance)
    body = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value)
    run = f"pretzel grid run {c.grid}\n" if c.grid else ""
    return f"<dl>{body}</dl><pre>{escape(run)}{escape(command)}</pre>"


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
