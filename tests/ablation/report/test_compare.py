"""`pretzel compare`: every format shows the same, with what is missing and why."""

import csv
import math
import os
import re
import shutil
import subprocess
import sys

import pytest
from made_grid import write_events, write_failure, write_plan, write_result

from pretzel.__main__ import main
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.report.comparison import load
from pretzel.ablation.report.grid_report import FILES, Report
from pretzel.ablation.report.latex import escaped
from pretzel.ablation.report.statistics import compare, seed_mean
from pretzel.ablation.report.table import result_table
from pretzel.files.atomic import read_json, write_json


def rows_of(text, first):
    """Return the lines of a Markdown table by the first cells, from the table with this head on."""
    table = text[text.index(f"| {first} ") :].split("\n\n")[0]
    cells = [[c.strip() for c in line.strip("| ").split(" | ")] for line in table.splitlines()]
    return cells


def test_statistics_by_hand(output):
    found = load(output)
    a = seed_mean(list(found.values("a", "acc").values()))
    assert a.mean == pytest.approx(0.3)
    assert a.half_width == pytest.approx(4.302652729911275 * math.sqrt(0.07 / 3))
    # b - a at the same seeds: 0.1, 0.2, 0.0: mean 0.1, s = 0.1
    # c lacks seed 0: pairs are seeds 1 and 2 only, 0.3 and 0.1; t_{0.975, 1} = 12.706205
    pairs = {arm: list(found.differences(arm, "acc").values()) for arm in "bc"}
    difference, paired = compare(pairs).values()
    assert difference.mean.mean == pytest.approx(0.1)
    assert difference.mean.half_width == pytest.approx(4.302652729911275 * 0.1 / math.sqrt(3))
    assert paired.mean.n == 2
    assert paired.mean.mean == pytest.approx(0.2)
    assert paired.mean.half_width == pytest.approx(
        12.706204736432095 * math.sqrt(0.02) / math.sqrt(2)
    )


def test_table(output, capsys):
    assert main(["compare", str(output)]) == 0
    shown = capsys.readouterr().out
    means = {row[0]: row for row in rows_of(shown, "arm")}
    assert means["arm"][2:4] == ["acc ↑", "loss ↓"]
    assert means["**a** (baseline)"][2] == "0.300 ± 0.657"
    assert means["b"][2:5] == ["**0.400 ± 0.497**", "n/a", "n/a"]
    assert means["c"][1] == "2 of 3 (1 failed)"
    assert means["d"][1] == "0 of 3 (3 pending)"
    assert means["d"][2:] == ["—"] * 7
    assert means["b"][5:] == ["1.70 M", "—", "—", "61 s"]
    changes = {(row[0], row[1]): row for row in rows_of(shown, "metric")}
    assert changes["acc ↑", "b"][2:6] == ["+0.100 ± 0.248", "3", "0.5", "1"]
    assert changes["acc ↑", "b"][-1] == "too few seeds"
    assert changes["loss ↓", "b"][2] == "n/a"
    assert changes["acc ↑", "d"][2] == "—"
    assert "c/seed0 (failed): NonFiniteError: loss is nan at step 7" in shown
    assert "d/seed0, seed1, seed2 (pending)" in shown
    assert "No run logged acuracy; did you mean 'acc'?" in shown
    assert "- b: model.lr: 1 -> 2" in shown
    assert "smallest p is 0.25, after Holm's correction over 2 arms 0.5: no difference" in shown
    assert "That takes 7 seeds." in shown
    assert (output / "compare.md").read_text().strip() == shown.strip()


def test_stale_results_stay_out_of_the_table(output):
    write_json(output / "a" / "seed0" / "result.json", {"identity": "old", "metrics": {"acc": 9.0}})
    found = load(output)
    assert found.values("a", "acc") == {1: 0.20, 2: 0.60}
    assert RunFolder(path=output / "a" / "seed0").state("x") is State.STALE
    assert "a/seed0 (stale)" in Report(output, "").text("markdown")


def test_adopted_results_are_in_the_table_and_flagged(tmp_path):
    write_plan(tmp_path, {"a": []}, metrics={"acc": "max"}, seeds=[0, 1, 2], evaluation="e")
    for seed, (identity, evaluation) in enumerate([("x", "e"), ("old", "e"), ("x", "other")]):
        more = {"identity": identity, "evaluation": evaluation}
        write_result(tmp_path, "a", seed, {"acc": 0.1}, **more)
    folder = RunFolder(path=tmp_path / "a" / "seed1")
    folder.adopt("x", "e", differences=["model.lr: 1 -> 3"], because="rounding")
    assert load(tmp_path).values("a", "acc") == {0: 0.1, 1: 0.1}
    text = Report(tmp_path, "").text("markdown")
    assert "although it differs: a/seed1 (adopted): model.lr: 1 -> 3 (rounding)" in text
    assert "a/seed2 (trained): trained, and not yet measured as is asked for now" in text


def test_diverged_seeds_are_shown_and_never_ranked(output):
    write_result(output, "b", 0, {"acc": math.nan})
    summary = result_table(load(output))
    text = Report(output, "").text("markdown")
    assert "| nan ± nan |" in text
    assert "not a number" in text
    entries = {row.arm: row.entries["acc"] for row in summary.rows}
    assert not entries["b"].best
    assert entries["b"].difference.p is None
    assert not any(entry.best for entry in entries.values())  # only a has all its seeds


def test_best_needs_all_seeds(output):
    """c has the best mean, of the two seeds that did not fail."""
    summary = result_table(load(output))
    assert [row.arm for row in summary.rows if row.entries["acc"].best] == ["b"]


def test_what_can_be_significant(tmp_path):
    seeds = range(6)
    write_plan(tmp_path, {"a": [], "b": ["model.x: 1 -> 2"]}, metrics={"acc": "max"}, seeds=seeds)
    for seed in seeds:
        write_result(tmp_path, "a", seed, {"acc": 0.1 * seed})
        write_result(tmp_path, "b", seed, {"acc": 0.1 * seed + 0.2 + 0.01 * seed})
    text = Report(tmp_path, "").text("markdown")
    assert "**0.475 ± 0.216** \\*" in text
    assert "| 6 | 0.031 | 0.031 |" in text
    assert "| significant |" in text
    assert "With 6 seeds the smallest p is 0.031." in text
    assert "no difference can be called" not in text


def test_cells_behind_a_failed_stage_say_so(tmp_path):
    stage = {"name": "stages/s1", "arm": "s1", "seed": None, "identity": "y", "needs": []}
    write_plan(
        tmp_path, {"a": [], "b": ["model.x: 1 -> 2"]}, metrics={"acc": "max"}, seeds=[0],
        stages=[stage], needs=["stages/s1"],
    )  # fmt: skip
    write_json(tmp_path / "stages" / "s1" / "run.json", {"identity": "y"})
    write_json(tmp_path / "stages" / "s1" / "failure.json", {"error": "OSError: no shard"})
    text = Report(tmp_path, "").text("markdown")
    assert "a/seed0 (pending): needs stages/s1, which failed: OSError: no shard" in text
    assert "Train time counts the stages" in text


def test_arms_that_do_not_exist_twins_and_edited_results_are_told(tmp_path):
    write_plan(
        tmp_path, {"a": [], "b": ["no s2"], "c": ["x: 1 -> 2"]}, metrics={"acc": "max"}, seeds=[0],
        absent={"b": {"": "grid.yaml:3: no such thing"}},
    )  # fmt: skip
    plan = read_json(tmp_path / "plan.json")
    plan["runs"][1]["identity"] = "y"
    write_json(tmp_path / "plan.json", plan)
    twins = {"weights": {"step": 4, "first": "f", "final": "z"}}
    costs = {"step_seconds": 0.0123, "peak_memory_bytes": 3 << 29}
    write_result(tmp_path, "a", 0, {"acc": 0.5}, digest="of other values", **twins, **costs)
    write_result(tmp_path, "c", 0, {"acc": 0.5}, identity="y", **twins)
    report = Report(tmp_path, "")
    rows = {row[0]: row for row in rows_of(report.text("markdown"), "arm")}
    assert rows["b"][1:] == ["n/a"] * 6
    assert rows["**a** (baseline)"][3:6] == ["1.70 M", "12.3 ms", "1.50 GiB"]
    for form in ("markdown", "latex", "csv", "html", "terminal"):
        text = " ".join(report.text(form).split())
        assert "no such thing" in text, form
        assert "result.json was edited after the run had written it" in text, form
        told = "a and c (seed0) train the same thing: their weights are equal bit for bit, after 4 "
        assert told in text or form == "csv", form


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "csv", "html"])
def test_every_format_tells_of_every_arm_metric_and_failure(output, form, capsys):
    assert main(["compare", str(output), "--format", form]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for arm in "abcd":
        assert re.search(rf"\b{arm}\b", shown)
    for word in ("acc", "loss", "acuracy", "failed", "pending", "n/a", "loss is nan at step 7"):
        assert word in shown, word


def test_csv_is_tidy(output):
    Report(output, "").save()
    values = [*csv.DictReader((output / "compare.csv").read_text().splitlines())]
    assert len(values) == 4 * 3 * 3  # arms, seeds, metrics
    by_key = {(v["arm"], v["seed"], v["metric"]): v for v in values}
    assert by_key["b", "1", "acc"]["value"] == "0.4"
    assert by_key["b", "1", "acc"]["axis"] == "b"
    assert by_key["b", "1", "loss"]["state"] == "n/a"
    assert by_key["c", "0", "acc"]["state"] == "failed"
    assert by_key["c", "0", "acc"]["trouble"] == "NonFiniteError: loss is nan at step 7"
    table = [*csv.DictReader((output / "compare_summary.csv").read_text().splitlines())]
    assert len(table) == 4 * 3
    (b,) = (row for row in table if (row["arm"], row["metric"]) == ("b", "acc"))
    assert float(b["difference"]) == pytest.approx(0.1)
    assert (b["p"], b["p_holm"], b["smallest_p_holm"]) == ("0.5", "1.0", "0.5")
    assert (b["best"], b["significant"], b["state"]) == ("True", "False", "ok")


def test_latex_is_a_table(output):
    write_plan(
        output, {"a": [], "b_{x}": ["50% & <$> \\"]}, metrics={"acc": "max"}, seeds=[0, 1, 2]
    )
    write_failure(output, "b_{x}", 0, "ValueError: 100% of ~/x^2 | {#}")
    text = Report(output, "").text("latex")
    bare = re.sub(r"\\[\\{}%&$#_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[ΔΔ↑↓±—‡<>|~^]", re.sub(r"\$[^$]*\$", "", bare))
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.S):
        columns, body = table
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(lines) > 1
        assert all(len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1 for line in lines)
    assert r"b\_\{x\}" in text
    assert r"acc $\uparrow$" in text


def test_latex_escapes():
    assert escaped("a_b & 5% #1 $x$ {y} ~ ^ \\ < >") == (
        r"a\_b \& 5\% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
        r" \textless{} \textgreater{}"
    )
    assert escaped("-0.3 ± 0.1 ↑ 1e-05 a-1") == r"$-$0.3 $\pm$ 0.1 $\uparrow$ 1e-05 a-1"


def test_markdown_is_not_broken_by_names(output):
    write_plan(output, {"a": [], "b|<i>": ["x: <b> -> *"]}, metrics={"acc": "max"}, seeds=[0])
    text = Report(output, "").text("markdown")
    assert "| b\\|\\<i> |" in text
    assert "x: \\<b> -> \\*" in text


def test_out(output, tmp_path, capsys):
    page = tmp_path / "elsewhere" / "page.html"
    assert main(["compare", str(output), "--out", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().out == f"{page}\n"
    assert main(["compare", str(output), "--out", str(tmp_path / "t"), "--format", "csv"]) == 0
    assert (tmp_path / "t").read_text().startswith("arm,axis,seed")
    for wrong, said in (
        (["--out", str(tmp_path / "x.doc")], "give a --format with it"),
        (["--out", str(tmp_path / "x.md"), "--format", "all"], "--out names one file"),
        (["--out", str(output), "--format", "csv"], "is a folder"),
        (["--format", "word"], "invalid choice"),
    ):
        assert main(["compare", str(output), *wrong]) == 2
        assert said in capsys.readouterr().err


def test_a_terminal_is_shown_what_suits_it(output, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["compare", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "| arm |" not in shown
    assert "0.300 ± 0.657" in shown
    assert main(["compare", str(output), "--format", "html"]) == 0
    assert capsys.readouterr().out == f"{(output / 'compare.html').as_uri()}\n"


def test_all_lists_the_files(output, capsys):
    assert main(["compare", str(output), "--format", "all"]) == 0
    names = [*FILES.values(), "compare_summary.csv"]
    assert capsys.readouterr().out.splitlines() == [str(output / name) for name in names]
    assert all((output / name).is_file() for name in names)


def test_a_folder_without_a_grid_is_refused(tmp_path, capsys):
    assert main(["compare", str(tmp_path)]) == 2
    assert "no plan.json there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_still_shown(output):
    command = [sys.executable, "-m", "pretzel", "compare", str(output)]
    if os.getuid() == 0:  # root may write anywhere, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("root without setpriv may write anywhere")
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    folders = [output, *(path for path in output.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    finally:
        for path in folders:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "0.300 ± 0.657" in done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert "cannot be written (Permission denied): the report is not saved there" in line
    assert not (output / "compare.md").exists()


def test_compare_imports_no_torch(output):
    write_events(output / "a" / "seed0", {"train/loss": {1: 2.0, 2: 1.0}}, [("test/samples", 2, 0)])
    code = (
        "import sys; from pretzel.__main__ import main\n"
        f"code = main(['compare', {str(output)!r}, '--format', 'all'])\n"
        "heavy = {'torch', 'lightning', 'transformers', 'tensorflow'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
