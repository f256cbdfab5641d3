"""The table's statistics against hand-computed values, and HParams in a real TensorBoard."""

import json
import math
import urllib.request
from pathlib import Path

import pytest

from pretzel.__main__ import main
from pretzel.ablation import compare, hparams
from pretzel.ablation.ledger import CellFolder, State, write_json

ARMS = {"a": [], "b": ["model.lr: 1 -> 2"], "c": ["model.x: A -> B"], "d": ["data.y: 1 -> 2"]}
ACCURACY = {
    "a": {0: 0.10, 1: 0.20, 2: 0.60},
    "b": {0: 0.20, 1: 0.40, 2: 0.60},
    "c": {1: 0.5, 2: 0.7},
}


@pytest.fixture
def output(tmp_path):
    """A grid's folder: a and b complete, c with one failed seed, d never run."""
    cells = [
        {"name": f"{arm}/seed{s}", "arm": arm, "seed": s, "identity": "x"}
        for arm in ARMS
        for s in range(3)
    ]
    write_json(
        tmp_path / "plan.json",
        {
            "grid": "grid.yaml",
            "baseline": "a",
            "axes": {"axis": list(ARMS)},
            "metrics": {"acc": "max", "loss": "min", "acuracy": "max"},
            "seeds": [0, 1, 2],
            "arms": {arm: {"choices": {"axis": arm}, "changes": ch} for arm, ch in ARMS.items()},
            "cells": cells,
        },
    )
    for arm, values in ACCURACY.items():
        for seed, value in values.items():
            metrics = {"acc": value} | ({"loss": 2.0 * value} if arm != "b" else {})
            write_json(
                tmp_path / arm / f"seed{seed}" / "result.json",
                {"identity": "x", "metrics": metrics, "train_seconds": 60.0 + seed,
                 "parameters": {"trainable": 1_700_000, "frozen": 0}},
            )  # fmt: skip
    write_json(tmp_path / "c" / "seed0" / "cell.json", {"identity": "x"})
    write_json(tmp_path / "c" / "seed0" / "failure.json", {"error": "NaN"})
    return tmp_path


def test_statistics_by_hand(output):
    found = compare.load(output)
    # a: mean 0.3, s^2 = ((0.2)^2 + (0.1)^2 + (0.3)^2) / 2 = 0.07; t_{0.975, 2} = 4.302653
    a = compare.estimate(list(found.values("a", "acc").values()))
    assert a.mean == pytest.approx(0.3)
    assert a.half_width == pytest.approx(4.302652729911275 * math.sqrt(0.07 / 3))
    # b - a at the same seeds: 0.1, 0.2, 0.0: mean 0.1, s = 0.1
    difference = found.difference("b", "acc")
    assert difference.mean == pytest.approx(0.1)
    assert difference.half_width == pytest.approx(4.302652729911275 * 0.1 / math.sqrt(3))
    # c lacks seed 0: pairs are seeds 1 and 2 only, 0.3 and 0.1; t_{0.975, 1} = 12.706205
    paired = found.difference("c", "acc")
    assert paired.n == 2
    assert paired.mean == pytest.approx(0.2)
    assert paired.half_width == pytest.approx(12.706204736432095 * math.sqrt(0.02) / math.sqrt(2))
    assert compare.estimate([0.5]).half_width is None
    assert compare.estimate([]) is None


def test_table(output, capsys):
    assert main(["compare", str(output)]) == 0
    shown = capsys.readouterr().out
    rows = {
        line.split(" | ")[0].strip("| "): line
        for line in shown.splitlines()
        if line.startswith("|")
    }
    assert "acc ↑" in rows["arm"]
    assert "loss ↓" in rows["arm"]
    assert "0.300 ± 0.657" in rows["**a** (baseline)"]
    assert "+0.100 ± 0.248" in rows["b"]
    assert rows["b"].count("n/a") == 4  # loss and acuracy, with their differences
    assert "2 of 3 (1 failed)" in rows["c"]
    assert "0 of 3 (3 pending)" in rows["d"]
    assert rows["d"].count("—") == 8
    assert "1.70 M" in rows["b"]
    assert "61 s" in rows["b"]
    assert "c/seed0 (failed)" in shown
    assert "No cell logged acuracy; did you mean 'acc'?" in shown
    assert "- b: model.lr: 1 -> 2" in shown
    assert (output / "compare.md").read_text().strip() == shown.strip()


def test_stale_results_stay_out_of_the_table(output):
    write_json(output / "a" / "seed0" / "result.json", {"identity": "old", "metrics": {"acc": 9.0}})
    found = compare.load(output)
    assert found.values("a", "acc") == {1: 0.20, 2: 0.60}
    assert CellFolder(path=output / "a" / "seed0").state("x") is State.STALE


def test_diverged_seeds_are_shown(output):
    values = {"identity": "x", "metrics": {"acc": math.nan}, "train_seconds": 1.0}
    write_json(output / "b" / "seed0" / "result.json", values)
    assert "| nan ± nan |" in compare.markdown(compare.load(output))


def test_a_folder_without_a_grid_is_refused(tmp_path, capsys):
    assert main(["compare", str(tmp_path)]) == 2
    assert "no plan.json there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")  # tensorboard's server and its dependencies
def test_hparams_in_tensorboard(output):
    hparams.write(compare.load(output))
    hparams.write(compare.load(output))  # replaces, does not add
    assert len(list(Path(output).glob("events.*"))) == 1
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(output), "--host", "127.0.0.1", "--port", "0",
                          "--load_fast", "false", "--reload_interval", "1"])  # fmt: skip
    url = board.launch()

    def ask(route, **body):
        request = urllib.request.Request(
            f"{url}data/plugin/hparams/{route}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        return json.load(urllib.request.urlopen(request))

    import time

    for _ in range(50):
        experiment = ask("experiment", experimentName="")
        groups = ask(
            "session_groups", experimentName="", startIndex=0, sliceSize=100,
            allowedStatuses=["STATUS_SUCCESS", "STATUS_UNKNOWN"],
            colParams=[{"metric": {"tag": "final/acc", "group": ""}}],
        ).get("sessionGroups", [])  # fmt: skip
        if len(groups) == 8:
            break
        time.sleep(0.2)
    assert {info["name"] for info in experiment["hparamInfos"]} == {"axis", "seed"}
    assert {info["name"]["tag"] for info in experiment["metricInfos"]} == {
        "final/acc", "final/loss", "final/acuracy",
    }  # fmt: skip
    found = {
        (g["hparams"]["axis"], int(g["hparams"]["seed"])): {
            m["name"]["tag"]: m["value"] for m in g["metricValues"]
        }["final/acc"]
        for g in groups
    }
    assert found == pytest.approx(
        {(arm, s): v for arm, values in ACCURACY.items() for s, v in values.items()}
    )
