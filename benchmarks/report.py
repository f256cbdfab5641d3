"""The result as Markdown and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.measure import Comparison


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows that belong together.

    Attributes:
        title: Heading.
        text: What is compared, and at which sizes.
        rows: Measurements.
        notes: Further findings.
    """

    title: str
    text: str
    rows: Sequence[Comparison]
    notes: Sequence[str] = ()


def markdown(header: Sequence[str], sections: Sequence[Section]) -> str:
    """Return all sections, each with a table."""
    lines = list(header)
    for section in sections:
        lines += ["", f"### {section.title}", "", section.text, "", *_table(section.rows)]
        lines += [line for note in section.notes for line in ("", note)]
    return "\n".join(lines)


def _table(rows: Sequence[Comparison]) -> list[str]:
    lines = [
        "| task | arm against other | CPU s | CPU ratio | clock ratio | goal | floor s | MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        goal = "-"
        if row.goal is not None:
            met = "met" if row.cpu.median <= row.goal else "missed"
            goal = f"<= {row.goal:.2f}: {met}"
        floor = "-" if row.floor is None else _seconds(row.floor)
        memory = "-"
        if row.mib is not None and row.other_mib is not None:
            memory = f"{row.mib:.0f} / {row.other_mib:.0f}"
        lines.append(
            f"| {row.task} | {row.arm} / {row.other} "
            f"| {_seconds(row.seconds)} / {_seconds(row.other_seconds)} "
            f"| {row.cpu} | {row.wall} | {goal} | {floor} | {memory} |"
        )
    return lines


def record(header: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the same as JSON."""
    content = {"header": list(header), "sections": [asdict(section) for section in sections]}
    return json.dumps(content, indent=2) + "\n"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g}"
