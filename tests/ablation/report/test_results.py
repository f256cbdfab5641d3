"""The results of a grid as a DataFrame."""

import pytest
from made_grid import write_result

from pretzel.ablation.report.grid_report import Report
from pretzel.ablation.report.results import results
from pretzel.errors import UserError


def test_one_row_for_each_run(output, accuracy):
    frame = results(output)
    assert len(frame) == 4 * 3
    states = frame.groupby("arm")["state"].agg(list).to_dict()
    assert states["c"] == ["failed", "done", "done"]
    assert states["d"] == ["pending"] * 3
    by_run = frame.set_index(["arm", "seed"])
    for arm, values in accuracy.items():
        for seed, value in values.items():
            assert by_run.loc[(arm, seed), "acc"] == value
    assert by_run.loc[("b", 1), "axis"] == "b"
    assert by_run.loc[("b", 1), ["trainable_parameters", "train_seconds"]].tolist() == [1.7e6, 61.0]
    unfinished = by_run.loc[[("c", 0), ("d", 0)]]
    assert (
        unfinished[["acc", "loss", "trainable_parameters", "train_seconds"]].isna().all(axis=None)
    )
    assert frame["acuracy"].isna().all()  # a metric of the grid that nothing has logged


def test_its_means_are_those_of_the_report(output):
    frame = results(str(output))
    means = frame.groupby("arm")["acc"].mean()
    for row in Report(output).table.rows:
        own = row.entries["acc"].own
        assert means[row.arm] == pytest.approx(own.mean) if own else means.isna()[row.arm]
    assert frame.attrs["baseline"] == "a"
    assert frame.attrs["directions"] == {"acc": "max", "loss": "min", "acuracy": "max"}


def test_what_else_was_logged_comes_last(output):
    write_result(output, "a", 0, {"acc": 0.1, "other": 3.0})
    frame = results(output)
    assert frame.columns[-1] == "other"
    assert frame["other"].dropna().tolist() == [3.0]


def test_a_folder_that_is_no_grid_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no plan\.json there"):
        results(tmp_path)
