"""The tables on a terminal."""

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pretzel.ablation.report import cell_texts, table_notes
from pretzel.ablation.report.table import ArmRow, ResultTable

_BOX = box.SIMPLE_HEAD


def show(summary: ResultTable, console: Console | None = None) -> None:
    """Print the tables, with what is missing and what the arms change below them.

    Args:
        summary: What to show.
        console: Where; standard output if None.
    """
    c = summary.comparison
    console = console or Console()
    parts: list[RenderableType] = [_arms(summary), *_lines(table_notes.missing(c), "red")]
    parts += _metrics(summary, wide=console.width >= 100)
    parts += _lines(table_notes.tuned(c), "cyan")
    parts += _lines(table_notes.incomparable(summary), "yellow")
    parts += _lines(table_notes.reach(summary), "bold")
    parts += _lines(table_notes.reading(summary), "dim")
    if told := table_notes.provenance(summary):
        parts += [Text("\nComputed from", style="bold"), *_lines(told, "dim")]
    parts.append(Text("\nWhat each arm changes", style="bold"))
    parts += _lines([f"{arm}: {'; '.join(told)}" for arm, told in c.arms.items() if told], "")
    console.print(Group(*parts))


def _lines(texts: list[str], style: str) -> list[RenderableType]:
    return [Padding(Text(text, style=style), (1, 0, 0, 0)) for text in texts]


def _arms(summary: ResultTable) -> Table:
    title = Text(str(summary.comparison.output), style="bold")
    table = Table(title=title, title_justify="left", box=_BOX, show_edge=False, pad_edge=False)
    table.add_column("arm", overflow="fold")
    table.add_column("seeds")
    for head in cell_texts.COST_HEADS:
        table.add_column(head, justify="right")
    for row in summary.rows:
        counted = Text(row.counted, style="" if row.counted.isdigit() else "red")
        table.add_row(_name(row), counted, *cell_texts.costs(row))
    return table


def _metrics(summary: ResultTable, *, wide: bool) -> list[RenderableType]:
    """Return a table for each metric, all of the same widths: readable for one as for ten."""
    heads = ["", "mean", *cell_texts.DIFFERENCE_HEADS[2:]]
    dropped = set() if wide else {heads.index("could detect")}
    lines = iter(cell_texts.difference_lines(summary))
    tables: list[list[list[Text]]] = []
    for column in summary.columns:
        tables.append([])
        for row in summary.rows:
            cells = ["baseline", *[""] * 5] if row.is_baseline else next(lines)[2:]
            shown = [_name(row), _mean(row, column.metric.name), *map(Text, cells)]
            tables[-1].append([cell for i, cell in enumerate(shown) if i not in dropped])
    kept = [head for i, head in enumerate(heads) if i not in dropped]
    widths = [
        max(len(head), *(len(line[i]) for lines in tables for line in lines))
        for i, head in enumerate(kept)
    ]
    parts: list[RenderableType] = []
    for column, body in zip(summary.columns, tables, strict=True):
        title = Text(cell_texts.head(column), style="bold cyan")
        table = Table(title=title, title_justify="left", box=_BOX, show_edge=False, pad_edge=False)
        for head, width in zip(kept, widths, strict=True):
            left = head in ("", "verdict")
            fixed = None if head == "verdict" else width  # the last may be folded
            justify: JustifyMethod = "left" if left else "right"
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
