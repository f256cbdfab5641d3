"""Results that are published with the project: the report and the docs say what they hold."""

import re
from pathlib import Path

import pytest

from pretzel.ablation.ledger import State
from pretzel.ablation.report.comparison import load
from pretzel.ablation.report.grid_report import Report

ROOT = Path(__file__).parents[3]
RESULTS = sorted(path.parent for path in (ROOT / "docs" / "results").glob("*/plan.json"))
COLUMNS = {
    "right": "test/right",
    "one_shape": "test/one_shape",
    "vqa": "test/vqa",
    "open": "test/vqa_open",
    "yes/no": "test/vqa_yes_no",
    "fid_judge": "test/fid_judge",
    "excess bits/dim": "test/nll_excess_bits_per_dim",
}


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_the_report_is_that_of_the_results(folder):
    published = (folder / "compare.md").read_text()
    assert Report(folder, "pretzel compare").text("markdown") == published


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_every_cell_is_done(folder):
    assert {cell.state for cell in load(folder).runs} == {State.DONE}


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_the_table_of_the_docs_is_that_of_the_results(folder):
    comparison = load(folder)
    page = (ROOT / "docs" / "results.md").read_text()
    section = page[page.index(f"pretzel compare docs/results/{folder.name}\n") :]
    table = re.search(r"^\| arm \| right \| one_shape \|.*\n(?:\|.*\n)+", section, re.MULTILINE)
    assert table
    header, _, *rows = (
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in table.group(0).splitlines()
    )
    assert [row[0].strip("`") for row in rows] == list(comparison.arms)
    for arm, *cells in rows:
        for column, cell in zip(header[1:], cells, strict=True):
            values = list(comparison.values(arm.strip("`"), COLUMNS[column]).values())
            mean = cell.split(" ")[0]
            if mean == "n/a":
                assert not values
            else:
                half_a_digit = 0.51 * 10.0 ** -len(mean.partition(".")[2])
                assert float(mean) == pytest.approx(sum(values) / len(values), abs=half_a_digit)
