"""Shows an inspection on a terminal."""

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datamodules.sources.source import Split
from datamodules.tools.cards import plain
from datamodules.tools.inspect_texts import bars, fact_rows
from datamodules.tools.summary import Summary


def show(summaries: Mapping[Split, Summary], console: Console | None = None) -> None:
    """Print counts, frequent answers, and what was skipped with its reasons."""
    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    for split in summaries:
        table.add_column(split, justify="right")
    for row in fact_rows(summaries):
        table.add_row(*row)
    console.print(table)
    for split, summary in summaries.items():
        if summary.answers:
            shown = bars(summary.answers, summary.uncounted_answers)
            answers = ", ".join(f"{plain(bar.label)} {bar.share:.0%}" for bar in shown)
            console.print(Text(f"answers of {split}: {answers}", style="dim"))
        for reason, count in summary.skipped.most_common():
            named = "; ".join(
                plain(f"{sample.key} in {sample.shard} ({sample.detail or reason})")
                for sample in summary.named[reason][:2]
            )
            console.print(Text(f"{split}: skipped {count:,} ({reason}), such as {named}", "yellow"))
