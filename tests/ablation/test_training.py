"""A cell's work, in this process: stopping, continuing, and whose weights are tested."""

import json
import signal
from dataclasses import replace

import pytest
import torch
from lab_files import BASE, write
from safetensors.torch import load_file

from pretzel.ablation.execution.shared_training import take_training
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.ablation.sample_file import read_samples
from pretzel.ablation.worker.checkpoints import digest
from pretzel.ablation.worker.training import train_and_test

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*isinstance.treespec, LeafSpec.",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
)
EMA = {
    "class_path": "lightning.pytorch.callbacks.EMAWeightAveraging",
    "init_args": {"decay": 0.5, "update_every_n_steps": 1},
}
STEPS = BASE["trainer"]["max_steps"]


@pytest.fixture
def spec(project):
    """What the runner writes for a cell with averaged weights."""
    write("base.yaml", {**BASE, "trainer": {**BASE["trainer"], "callbacks": [EMA]}})
    grid = {"base": "base.yaml", "axes": {"a": {"x": {}}}, "baseline": {"a": "x"}, "metrics": {}}
    cell = plan_grid(load(write("grid.yaml", grid))).compared[0]
    handler = signal.getsignal(signal.SIGINT)
    own = {"export": False, "tests": True, "checkpoint_seconds": 1000.0, "identity": "x"}
    yield own | {"config": cell.config}
    signal.signal(signal.SIGINT, handler)  # Lightning's graceful stop leaves Ctrl-C ignored


def run(path, spec, stop_at=None):
    """Run a cell; ask it to stop at the end of a step."""
    folder = RunFolder(path=path)
    path.mkdir(exist_ok=True)
    asked = iter(range(1000))  # 0: before training
    spec = {**spec, "config": {**spec["config"]}}
    spec["config"]["trainer"] = {**spec["config"]["trainer"], "logger": False}
    return train_and_test(folder, spec, lambda: next(asked) == stop_at)


def weight(path):
    return torch.load(path / "final.ckpt", weights_only=True)["state_dict"]["weight"]


def test_stops_with_a_checkpoint_and_continues(project, spec):
    path = project / "cell"
    with pytest.raises(SystemExit):  # Lightning's graceful stop
        run(path, spec, stop_at=2)
    saved = torch.load(path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert RunFolder(path=path).progress["step"] == 2
    assert not (path / "final.ckpt").exists()
    assert not RunFolder(path=path).progress["weights"]
    result = run(path, spec)
    assert result["steps"] == STEPS
    assert result["weights"]["step"] == 4


def test_stopped_at_the_very_last_step_the_averaged_weights_are_tested(project, spec):
    # Lightning by itself would skip fitting on the second start, and the swap to the averages
    straight = run(project / "straight", spec)
    with pytest.raises(SystemExit):
        run(project / "stopped", spec, stop_at=STEPS)
    assert RunFolder(path=project / "stopped").progress["weights"] == {
        name: straight["weights"][name] for name in ("step", "first")
    }
    resumed = run(project / "stopped", spec)
    assert resumed["weights"] == straight["weights"]  # recorded before it was stopped
    raw = torch.load(project / "stopped" / "last.ckpt", weights_only=True)["current_model_state"]
    assert not torch.equal(raw["weight"], weight(project / "straight"))
    assert torch.equal(weight(project / "stopped"), weight(project / "straight"))
    assert resumed["metrics"]["test/loss"] == straight["metrics"]["test/loss"]


def test_trained_but_not_tested_is_only_tested(project, spec):
    path = project / "cell"
    result = run(path, spec)
    (path / "final.ckpt").rename(path / "kept")
    other = torch.load(path / "kept", weights_only=True)
    torch.save(other | {"state_dict": {"weight": torch.ones(3)}}, path / "final.ckpt")
    fitted = json.loads((path / "fit.json").read_text())
    (path / "fit.json").write_text(json.dumps(fitted | {"sha256": digest(path / "final.ckpt")}))
    again = run(path, spec)
    assert again["steps"] == STEPS
    assert again["metrics"]["test/loss"] != result["metrics"]["test/loss"]  # of the saved weights
    assert again["weights"] == result["weights"]


def test_trained_but_not_exported_the_trained_weights_are_exported(project, spec):
    path = project / "cell"
    run(path, {**spec, "export": True})
    exported = load_file(path / "weights.safetensors")["weight"]
    (path / "weights.safetensors").unlink()
    (path / "result.json").unlink(missing_ok=True)
    run(path, {**spec, "export": True})  # a fresh model, whose own weights are the initial ones
    assert torch.equal(load_file(path / "weights.safetensors")["weight"], exported)


def test_a_result_says_what_it_took(project, spec):
    result = run(project / "cell", spec)
    assert 0 < result["step_seconds"] < result["train_seconds"]
    assert 50e6 < result["peak_memory_bytes"] < 100e9
    assert result["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"python", "lightning", "pretzel"} <= set(result["versions"])
    assert result["facts"] == {}


def test_what_callbacks_know_of_their_metrics_is_kept_over_a_restart(project, spec):
    spec["config"]["trainer"]["callbacks"] = [{"class_path": "noisy.Knowing"}]
    first = run(project / "cell", spec)
    again = run(project / "cell", spec)  # trained, and only tested anew
    assert first["facts"] == again["facts"] == {"test/loss": {"n": 32}, "train/loss": {"n": 6}}


def test_results_of_items_are_kept_beside_the_result(project, spec):
    callbacks = spec["config"]["trainer"]["callbacks"]
    plain = run(project / "plain", spec)
    assert plain["samples"] is plain["measured"] is None
    spec["config"]["trainer"]["callbacks"] = [*callbacks, {"class_path": "lab.Near"}]
    result = run(project / "cell", spec)
    samples = [*read_samples(project / "cell", result["samples"])]
    assert len(samples) == result["samples"]["items"] == 32
    for name in ("test/near", "test/error"):
        mean = sum(sample["values"][name] for sample in samples) / 32
        assert mean == pytest.approx(result["metrics"][name], rel=1e-6)
    assert run(project / "again", spec)["samples"] == result["samples"]  # the same file
    assert run(project / "again", spec)["measured"] == result["measured"]
    spec["config"]["trainer"]["callbacks"] = callbacks
    assert run(project / "cell", spec)["samples"] is None  # measured anew, by nothing of the kind
    assert not (project / "cell" / "samples.jsonl.gz").exists()


def test_arms_that_differ_in_evaluation_alone_share_one_training(project, spec):
    norm = {"trainer.callbacks": [EMA, {"class_path": "lab.TestNorm"}]}
    values = {"base": "base.yaml", "axes": {"a": {"x": {}, "y": norm}}, "baseline": {"a": "x"}}

    def planned(metric):
        return plan_grid(load(write("grid.yaml", values | {"metrics": {metric: "min"}})))

    plan = planned("test/loss")
    trainer, sharer = plan.compared
    assert (trainer.trained_by, sharer.trained_by) == (None, trainer.name)
    assert planned("val/loss").compared[1].trained_by is None  # validation is a part of training
    assert not take_training(plan, trainer)
    assert not take_training(plan, sharer)
    for cell in plan.compared:
        plan.folder(cell).prepare({"identity": trainer.identity})
    first = run(plan.folder(trainer).path, spec | {"config": trainer.config})
    assert not take_training(plan, replace(sharer, identity="another"))
    assert not take_training(plan, sharer, again=[sharer.name])
    assert take_training(plan, sharer)
    assert not take_training(plan, sharer)  # it has it
    second = run(plan.folder(sharer).path, spec | {"config": sharer.config})
    assert second["train_seconds"] == first["train_seconds"]
    assert second["weights"] == first["weights"]
    assert second["metrics"].items() - first["metrics"].items() == {
        ("test/norm", second["metrics"]["test/norm"])
    }
