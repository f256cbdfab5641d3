"""A cell whose training was adopted: where it stands, and what new metrics are measured with."""

import pytest
from lab_files import BASE, write

from pretzel.ablation.execution.adopted_runs import adopted_training
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.identity.fingerprint import measured_as
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.files.atomic import write_json

EMA = {"class_path": "callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
SAVES = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {}}
VQA = {"class_path": "callbacks.VQAAccuracy", "init_args": {}}
LIKELIHOOD = {"class_path": "callbacks.Likelihood", "init_args": {}}
NONE = {"class_path": "pretzel.sampling.NoDenoiser", "init_args": {}}
SCORE = {"class_path": "pretzel.sampling.ScoreDenoiser", "init_args": {}}
LEARNED = {"class_path": "pretzel.sampling.LearnedDenoiser", "init_args": {}}


def config(*, steps, tests, callbacks, denoiser, lr):
    return {
        "trainer": {"max_steps": steps, "limit_test_batches": tests, "callbacks": callbacks},
        "model": {"class_path": "M", "init_args": {"denoiser": denoiser, "lr": lr}},
    }


def test_what_measures_is_that_of_the_other_and_the_rest_stays():
    trained = config(steps=3, tests=None, callbacks=[VQA, EMA, SAVES], denoiser=NONE, lr=1)
    other = {**EMA, "init_args": {"decay": 0.5}}
    asked = config(steps=4, tests=7, callbacks=[other, LIKELIHOOD], denoiser=SCORE, lr=2)
    assert measured_as(trained, asked) == config(
        steps=3, tests=7, callbacks=[EMA, SAVES, LIKELIHOOD], denoiser=SCORE, lr=1
    )


@pytest.mark.parametrize(("before", "after", "kept"), [
    (None, SCORE, SCORE), (SCORE, None, None), (LEARNED, SCORE, LEARNED), (NONE, LEARNED, NONE),
])  # fmt: skip
def test_a_part_that_trains_is_not_exchanged(before, after, kept):
    one, two = ({"class_path": "M", "init_args": {"denoiser": part}} for part in (before, after))
    assert measured_as(one, two)["init_args"]["denoiser"] == kept
    assert measured_as(one, {**two, "class_path": "N"}) == one


@pytest.mark.parametrize("callbacks", [None, [], VQA])
def test_callbacks_may_be_missing_or_one_alone(callbacks):
    asked = config(steps=4, tests=7, callbacks=LIKELIHOOD, denoiser=SCORE, lr=2)
    trained = config(steps=3, tests=None, callbacks=callbacks, denoiser=NONE, lr=1)
    assert measured_as(trained, asked)["trainer"]["callbacks"] == [LIKELIHOOD]


def test_where_it_stands(tmp_path):
    folder = RunFolder(path=tmp_path)
    write_json(tmp_path / "result.json", {"identity": "old", "evaluation": "e1"})
    assert folder.state("new", "e1") is State.STALE
    folder.adopt("new", "e1")
    assert folder.state("new", "e1") is State.DONE
    assert folder.state("new", "e2") is State.TRAINED  # a new metric: to be measured
    assert folder.state("other", "e1") is State.STALE
    assert folder.state("old", "e2") is State.TRAINED
    write_json(tmp_path / "result.json", {"identity": "old", "evaluation": "e2"})
    assert folder.state("new", "e2") is State.DONE
    assert folder.state("new", "e1") is State.TRAINED


def test_figures_that_are_adopted_are_not_those_of_another_metric(tmp_path):
    folder = RunFolder(path=tmp_path)
    write_json(tmp_path / "result.json", {"identity": "x", "evaluation": "e1"})
    folder.adopt("x", "e2")
    assert folder.state("x", "e2") is State.DONE
    assert folder.state("x", "e3") is State.TRAINED


def plan(steps):
    write("base.yaml", {**BASE, "trainer": {**BASE["trainer"], "max_steps": steps}})
    return plan_grid(load(write("grid.yaml", {
        "base": "base.yaml", "axes": {"size": {"small": {}, "tuned": {
            "tune": {"model.lr": [0.1, 1]}}}}, "seeds": [3], "baseline": {"size": "small"},
        "metrics": {"test/loss": "min"}, "tuning": {"metric": "val/loss", "direction": "min"},
    })))  # fmt: skip


def test_a_tuned_cell_keeps_what_it_was_trained_with(project):
    old, new = (next(c for c in plan(steps).compared if c.candidates) for steps in (5, 6))
    folder = RunFolder(path=project / "cell")
    config = old.candidates[1].config
    write_json(folder.path / "run.json", {"config": config, "fingerprint": old.record})
    done = {"identity": old.identity, "evaluation": old.evaluation, "tuned": "model.lr=1, the best"}
    assert adopted_training(folder, new) is None
    write_json(folder.path / "result.json", done)
    assert adopted_training(folder, new) is None
    folder.adopt(new.identity, new.evaluation)
    found = adopted_training(folder, new)
    assert (found["identity"], found["tuned"]) == (old.identity, "model.lr=1, the best")
    assert found["config"]["model"]["init_args"]["lr"] == 1
    assert found["config"]["trainer"]["max_steps"] == 5
    assert found["config"]["trainer"]["default_root_dir"] == str(folder.path)
    assert found["fingerprint"]["config"] == old.record["config"]
    assert adopted_training(folder, old) is None
