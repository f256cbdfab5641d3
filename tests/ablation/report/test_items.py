"""Results of single items in the report: a small grid that kept them, and files of others."""

import base64
import csv
import gzip
import io
import math

import numpy as np
import pytest
from html_page import Page
from made_grid import write_plan, write_result

from pretzel.__main__ import main
from pretzel.ablation.report.comparison import load
from pretzel.ablation.report.grid_report import Report
from pretzel.ablation.report.table import result_table
from pretzel.ablation.sample_file import SAMPLE_FILE, write_samples

ARMS = {"a": [], "b": ["model.lr: 1 -> 2"], "c": ["model.x: A -> B"]}
METRICS = {"test/acc": "max", "test/bits": "min", "test/fid": "min"}
RIGHT = {  # seeds by items
    "a": [[1, 0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 1, 0, 0]],
    "b": [[1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1]],
    "c": [[1, 0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1, 0, 0]],
}


def samples(arm, row, seed):
    return [
        {
            "item": f"q{i}",
            "values": {"test/acc": float(hit), "test/bits": 1.0 + i + seed},
            "group": f"image {i // 2}",
            "texts": {"question": f"what is {i}?", "answer": arm, "truth": "<b>bold</b>"},
        }
        for i, hit in enumerate(row)
    ]


def write_run(folder, arm, seed, kept, **more):
    metrics = {"test/fid": 3.0}
    for name in ("test/acc", "test/bits"):
        metrics[name] = float(np.mean([one["values"][name] for one in kept]))
    run = folder / arm / f"seed{seed}"
    run.mkdir(parents=True, exist_ok=True)
    write_result(folder, arm, seed, metrics | more, samples=write_samples(run, kept))


@pytest.fixture
def kept(tmp_path):
    write_plan(tmp_path, ARMS, metrics=METRICS, seeds=[0, 1])
    for arm, rows in RIGHT.items():
        for seed, row in enumerate(rows):
            write_run(tmp_path, arm, seed, samples(arm, row, seed))
    return tmp_path


def entry(folder, metric, arm):
    (found,) = (
        by_arm[arm]
        for one, by_arm in result_table(load(folder)).items.metrics.items()
        if one.name == metric
    )
    return found


def test_a_metric_is_the_mean_of_its_items_with_their_uncertainty(kept):
    found = entry(kept, "test/acc", "b")
    assert found.own.mean == 15 / 16
    assert (found.own.num_items, found.own.num_groups) == (8, 4)
    assert found.own.floor == pytest.approx(1.96 * math.sqrt(15 / 16 / 16 / 8), rel=1e-4)
    assert found.difference.better == (5, 5)
    assert found.difference.worse == (0, 0)
    # by images: 1, 2, 1, 1 and 1, 2, 0, 2 more right answers: all 4 agree, and all 3
    assert found.difference.ps == (0.125, 0.25)
    assert found.difference.p == 0.125
    assert found.p_holm == 0.25
    assert entry(kept, "test/acc", "a").difference is None
    assert entry(kept, "test/bits", "b").own.floor is None
    assert entry(kept, "test/bits", "b").difference.p == 1.0


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html"])
def test_every_format_has_both_tables(kept, form):
    text = Report(kept).text(form, width=200)
    for word in ("8 in 4", "± both", "10 : 0", "0.12, 0.25", "McNemar"):
        word = word.replace("±", r"$\pm$") if form == "latex" else word
        assert word in " ".join(text.split()), word
    assert "Items:" not in text


def test_without_results_of_items_nothing_is_said_of_them(output):
    report = Report(output)
    report.save()
    for form in ("markdown", "latex", "html"):
        assert "± floor" not in report.text(form).replace(r"$\pm$", "±")
    assert not (output / "compare_items.csv").exists()


def test_the_table_as_csv_has_every_seed(kept):
    assert main(["compare", str(kept), "--format", "csv"]) == 0
    rows = [*csv.DictReader(io.StringIO((kept / "compare_items.csv").read_text()))]
    of_b = [row for row in rows if (row["arm"], row["metric"]) == ("b", "test/acc")]
    assert [row["seed"] for row in of_b] == ["", "0", "1"]
    assert [row["p"] for row in of_b] == ["0.125", "0.125", "0.25"]
    assert of_b[0]["mean"] == "0.9375"
    assert float(of_b[0]["ci95_both"]) > float(of_b[0]["ci95_items"]) > 0
    assert len(rows) == 2 * (3 + 2 * 2)


def test_the_page_lists_the_items_on_which_arms_differ_most(kept):
    found = Page(Report(kept).text("html"))
    assert "test/acc ↑: items on which b differs most from a" in found.words
    assert "items on which c differs most from a" in found.words
    assert "q1 question: what is 1? truth: <b>bold</b> 1 0 0 answer: a 1 answer: b" in found.words
    assert "q4 question: what is 4? truth: <b>bold</b> -0.5 1" in found.words.replace(
        "\N{MINUS SIGN}", "-"
    )
    assert "test/bits ↓: items" not in found.words  # no difference
    assert "b" not in found.tags


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(51)).decode()


def test_pictures_are_shown_if_they_are_such(kept):
    rows = {"a": samples("a", RIGHT["a"][0], 0), "b": samples("b", RIGHT["b"][0], 0)}
    rows["a"][1] |= {"picture": PNG}
    rows["b"][1] |= {"picture": 'x" onerror="alert(1)'}
    rows["b"][2] |= {"picture": PNG[:16] + '"' + PNG[17:]}
    for arm, row in rows.items():
        write_run(kept, arm, 0, row)
    found = Page(Report(kept).text("html"))
    pictures = [a for a in found.addresses if a.startswith("data:")]
    assert pictures == [f"data:image/png;base64,{PNG}"]


def test_what_is_not_the_runs_is_marked_in_a_sentence_and_left_out(kept):
    path = kept / "b" / "seed0" / SAMPLE_FILE
    path.write_bytes(gzip.compress(b"edited"))
    write_run(kept, "c", 0, samples("c", RIGHT["c"][0], 0), **{"test/acc": 0.9})
    write_run(kept, "c", 1, samples("c", [1] * 7, 1))
    text = Report(kept).text("markdown")
    assert "Items: b/seed0: samples.jsonl.gz is not as the run has written it: its items" in text
    assert "Items: c/seed0: test/acc is not the mean of its items." in text
    assert "Items: c: test/acc is of other items than the baseline's." in text
    assert "Items: c/seed1: test/bits is of items of its own." in text
    assert entry(kept, "test/acc", "b").difference.better == (5,)  # the seed that is whole
