"""What was tuned is in every format: what won for which seed, of how many runs, by what."""

import csv

import pytest
from made_grid import write_plan, write_result

from pretzel.ablation.report.comparison import load
from pretzel.ablation.report.grid_report import Report
from pretzel.files.atomic import read_json, write_json

RATES = {f"tuning/b-lr={rate}-0123abcd": f"model.lr={rate}" for rate in ("0.01", "0.1", "1")}
FORMATS = ("terminal", "markdown", "latex", "html")


def note(rate):
    return f"model.lr={rate}, the best of 3 by val/loss (1.5); 1 of them failed"


@pytest.fixture
def folder(tmp_path):
    """Arm b is tuned over three rates, of which the last fails; its seed 2 has another winner."""
    arms = {"a": [], "b": ["model.lr: tuned over 3 values [0.01, 0.1, 1]"]}
    write_plan(tmp_path, arms, metrics={"acc": "max"}, seeds=[0, 1, 2])
    plan = read_json(tmp_path / "plan.json")
    plan["tuning"] = {"metric": "val/loss", "direction": "min", "seed": 3}
    for cell in plan["runs"]:
        if cell["arm"] == "b":
            cell |= {"needs": ["stages/s1", *RATES], "candidates": RATES}
    run = {"arm": "b", "seed": None, "identity": "y", "needs": []}
    plan["runs"] = [{**run, "name": name} for name in ("stages/s1", *RATES)] + plan["runs"]
    write_json(tmp_path / "plan.json", plan)
    done = {"identity": "y", "train_seconds": 1000.0}
    write_json(tmp_path / "stages/s1/result.json", {**done, "metrics": {}})
    for name, score in zip(RATES, (2.25, 1.5), strict=False):
        write_json(tmp_path / name / "result.json", {**done, "metrics": {"val/loss": score}})
    failed = tmp_path / [*RATES][-1]
    write_json(failed / "run.json", {"identity": "y"})
    write_json(failed / "failure.json", {"error": "it exploded"})
    for seed in range(3):
        write_result(tmp_path, "a", seed, {"acc": 0.1})
        write_result(tmp_path, "b", seed, {"acc": 0.2}, tuned=note("0.01" if seed == 2 else "0.1"))
    return tmp_path


def text(folder, form):
    shown = " ".join(Report(folder, "").text(form, 400).split())
    return shown.replace("$\\downarrow$", "↓").replace("<wbr>", "").replace("\u00a0", " ")


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_what_won(folder, form):
    shown = text(folder, form)
    assert "model.lr=0.1 (seed0, seed1); model.lr=0.01 (seed2)" in shown
    for tried in ("model.lr=0.01: 2.25", "model.lr=0.1: 1.5", "model.lr=1: failed"):
        assert tried in shown, tried
    assert "val/loss ↓" in shown
    assert "3 candidate runs" in shown
    assert "not tuned: a" in shown


@pytest.mark.parametrize("form", FORMATS)
def test_one_winner_for_all_seeds_is_told_once(folder, form):
    write_result(folder, "b", 2, {"acc": 0.2}, tuned=note("0.1"))
    assert "model.lr=0.1 (all 3 seeds)" in text(folder, form)


@pytest.mark.parametrize("form", [*FORMATS, "csv"])
def test_without_tuning_nothing_is_said_of_it(output, form):
    assert "candidate" not in text(output, form)


def test_as_csv(folder):
    Report(folder, "").save()
    values = [*csv.DictReader((folder / "compare.csv").read_text().splitlines())]
    assert {(v["arm"], v["seed"]): v["tuned"] for v in values} == {
        ("a", "0"): "", ("a", "1"): "", ("a", "2"): "",
        ("b", "0"): "model.lr=0.1", ("b", "1"): "model.lr=0.1", ("b", "2"): "model.lr=0.01",
    }  # fmt: skip
    a, b = csv.DictReader((folder / "compare_summary.csv").read_text().splitlines())
    assert (a["tuned"], a["tuning_candidates"], a["tuning_metric"]) == ("", "0", "")
    assert b["tuned"] == "model.lr=0.1 (seed0, seed1); model.lr=0.01 (seed2)"
    assert (b["tuning_candidates"], b["tuning_metric"]) == ("3", "val/loss")


def test_candidates_do_not_count_in_train_time(folder):
    (_, *_), cells = load(folder).by_arm.values()
    assert cells[0].train_seconds == 60.0 + 1000.0  # its own and the stage's


def test_what_is_not_chosen_yet(folder):
    for seed in range(3):
        (folder / f"b/seed{seed}/result.json").unlink()
    assert "b: not chosen yet, the best of 3 candidate runs" in text(folder, "markdown")
    for name in RATES:
        (folder / name / "result.json").unlink(missing_ok=True)
        write_json(folder / name / "run.json", {"identity": "y"})
        write_json(folder / name / "failure.json", {"error": "it exploded"})
    shown = text(folder, "markdown")
    assert "b/seed0, seed1, seed2 (pending): all 3 candidates of its tuning failed" in shown


def test_what_was_chosen_with_another_setup_is_not_shown(folder):
    result = read_json(folder / "b/seed2/result.json")
    write_json(folder / "b/seed2/result.json", {**result, "identity": "old"})
    assert "model.lr=0.1 (seed0, seed1)," in text(folder, "markdown")


def test_a_stage_that_was_tuned_is_told_with_its_name(folder):
    plan = read_json(folder / "plan.json")
    for cell in plan["runs"]:
        if cell["seed"] is not None:
            cell |= {"needs": ["stages/s1"], "candidates": {}}
        if cell["name"] == "stages/s1":
            cell |= {"arm": "s1", "needs": [*RATES], "candidates": RATES}
    write_json(folder / "plan.json", plan)
    stage = read_json(folder / "stages/s1/result.json")
    write_json(folder / "stages/s1/result.json", {**stage, "tuned": note("0.1")})
    found = load(folder)
    assert {arm: one.link for arm, (one,) in found.tunings.items()} == {"a": "s1", "b": "s1"}
    shown = text(folder, "markdown")
    assert "b: s1: model.lr=0.1 (all 3 seeds), the best of 3" in shown
    assert "3 candidate runs in all" in shown  # which both arms share
    assert "not tuned" not in shown
