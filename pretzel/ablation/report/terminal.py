"""The tables on a terminal."""

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pretzel.ablation.report import cell_texts, item_texts, table_notes
from pretzel.ablation.report.table import ArmRow, ResultTable


def show(results: ResultTable, console: Console | None = None) -> None:
    """Print the tables, with what is missing and what the arms change below them."""
    c = results.comparison
    console = console or Console()
    parts: list[RenderableType] = [_arms(results), *_lines(table_notes.missing(c), "red")]
    parts += _metrics(results, wide=console.width >= 100)
    parts += _lines(table_notes.tuned(c), "cyan")
    parts += _lines(table_notes.warnings(results), "yellow")
    parts += _lines(table_notes.reach(results), "bold")
    parts += _lines(table_notes.reading(results), "dim")
    if results.items.metrics:
        for lines in (item_texts.mean_lines, item_texts.difference_lines):
            parts += [Text(), _plain(lines(results.items))]
    parts += _lines(item_texts.reading(results.items), "dim")
    if sources := table_notes.provenance(results):
        parts += [Text("\nComputed from", style="bold"), *_lines(sources, "dim")]
    parts.append(Text("\nWhat each arm changes", style="bold"))
    parts += _lines([f"{arm}: {'; '.join(changes)}" for arm, changes in c.arms.items() if changes])
    console.print(Group(*parts))


def _lines(texts: list[str], style: str = "") -> list[RenderableType]:
    return [Padding(Text(text, style=style), (1, 0, 0, 0)) for text in texts]


def _table(title: str, style: str) -> Table:
    heading = Text(title, style=style)  # as text: names are no markup
    return Table(
        title=heading, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )


def _plain(lines: list[list[str]]) -> Table:
    head, *body = lines
    table = _table("Test items", "bold cyan")
    for name in head:
        table.add_column(name, justify="left" if name in ("metric", "arm") else "right")
    for line in body:
        table.add_row(*map(Text, line))
    return table


def _arms(results: ResultTable) -> Table:
    table = _table(str(results.comparison.output), "bold")
    table.add_column("arm", overflow="fold")
    table.add_column("seeds")
    for head in cell_texts.COST_HEADS:
        table.add_column(head, justify="right")
    for row in results.rows:
        counted = Text(row.counted, style="" if row.counted.isdigit() else "red")
        table.add_row(_name(row), counted, *cell_texts.costs(row))
    return table


def _metrics(results: ResultTable, *, wide: bool) -> list[RenderableType]:
    """Return a table for each metric, all of the same widths: readable for one as for ten."""
    lines = iter(cell_texts.difference_lines(results))
    heads = ["", "mean", *next(lines)[2:]]
    kept = [i for i, head in enumerate(heads) if wide or head != "could detect"]
    bodies: list[list[list[Text]]] = []
    for column in results.columns:
        bodies.append([])
        for row in results.rows:
            cells = ["baseline", *[""] * 5] if row.is_baseline else next(lines)[2:]
            line = [_name(row), _mean(row, column.metric.name), *map(Text, cells)]
            bodies[-1].append([line[i] for i in kept])
    every_line = [line for body in bodies for line in body]
    parts: list[RenderableType] = []
    for column, body in zip(results.columns, bodies, strict=True):
        table = _table(cell_texts.metric_head(column), "bold cyan")
        for place, head in enumerate(heads[i] for i in kept):
            width = max(len(head), *(len(line[place]) for line in every_line))
            justify: JustifyMethod = "left" if head in ("", "verdict") else "right"
            fixed = None if head == "verdict" else width  # the last may be folded
            table.add_column(head, justify=justify, width=fixed, overflow="fold")
        for line in body:
            table.add_row(*line)
        parts += [Text(), table]
    return parts


def _name(row: ArmRow) -> Text:
    return Text(row.arm, style="bold" if row.is_baseline else "")


def _mean(row: ArmRow, metric: str) -> Text:
    entry = row.entries[metric]
    text = Text(cell_texts.value(entry, row), style="bold green" if entry.best else "")
    return text.append(f" {cell_texts.SIGNIFICANT}", style="bold") if entry.significant else text
