"""Exports of runs that may be a stranger's: nothing is written or copied that is not the run's."""

import json

import pytest
import torch
from lab_files import BASE

from pretzel.ablation.export import export
from pretzel.ablation.sample_file import SAMPLE_FILE, write_samples
from pretzel.errors import UserError

DIGEST = "0123456789abcdef"


@pytest.fixture
def run(project):
    """A finished run, as a grid leaves it."""
    folder = project / "grid" / "arm" / "seed0"
    folder.mkdir(parents=True)
    (project / "grid" / "source").mkdir()
    (project / "grid" / "source" / f"{DIGEST}.py").write_text("kept = 1\n")
    (project / "secret.py").write_text("secret = 1\n")
    spec = {"name": "arm/seed0", "config": BASE, "fingerprint": {"modules": {"my.part": DIGEST}}}
    (folder / "run.json").write_text(json.dumps(spec))
    (folder / "result.json").write_text(json.dumps({"metrics": {"test/loss": 0.5}}))
    torch.save({"state_dict": {"weight": torch.ones(3)}}, folder / "final.ckpt")
    return folder


def change(run, **values):
    spec = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**spec, **values}))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_export_holds_the_run_and_the_source_that_was_kept(run, project):
    export(run, project / "out")
    written = ["config.yaml", "environment.json", "metrics.json", "source/my/part.py"]
    assert files(project / "out") == [*written, "weights.safetensors"]
    assert (project / "out" / "source/my/part.py").read_text() == "kept = 1\n"


SYSTEM = {"class_path": "os.system", "init_args": {"command": "touch executed"}}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"fingerprint": {"modules": {"../../../planted": DIGEST}}},
            "modules must be dotted names",
        ),
        ({"fingerprint": {"modules": {"secret": "../../secret"}}}, "must be hexadecimal, got '../"),
        (
            {"fingerprint": {"modules": {"a": "feed"}}},
            r"feed\.py: source code must lie in the grid",
        ),
        ({"fingerprint": [1]}, r"run\.json: fingerprint must be a mapping, got \[1\]"),
        ({"config": "base.yaml"}, "config must be a mapping, got 'base.yaml'"),
        ({"config": {**BASE, "model": SYSTEM}}, "'os.system' is no LightningModule"),
    ],
)
def test_what_does_not_belong_to_a_run_is_refused_and_nothing_written(
    run, project, values, expected
):
    (project / "grid" / "source" / "feed.py").symlink_to(project / "secret.py")
    change(run, **values)
    before = files(project)
    with pytest.raises(UserError, match=expected):
        export(run, project / "out")
    assert files(project) == before


@pytest.mark.parametrize("name", ["final.ckpt", "result.json"])
def test_a_link_is_no_file_of_a_run(run, project, name):
    (run / name).rename(project / name)
    (run / name).symlink_to(project / name)
    with pytest.raises(UserError, match=f"{name}: a file of the run must lie in its folder"):
        export(run, project / "out")


def test_results_of_items_are_copied_if_they_are_the_runs(run, project):
    result = {"metrics": {}, "samples": write_samples(run, [{"item": "a", "values": {"m": 1.0}}])}
    (run / "result.json").write_text(json.dumps(result))
    export(run, project / "out")
    assert (project / "out" / SAMPLE_FILE).read_bytes() == (run / SAMPLE_FILE).read_bytes()
    (project / "secret").write_bytes((run / SAMPLE_FILE).read_bytes())
    (run / SAMPLE_FILE).unlink()
    (run / SAMPLE_FILE).symlink_to(project / "secret")
    with pytest.raises(UserError, match=r"samples\.jsonl\.gz is missing"):
        export(run, project / "other")
    assert not (project / "other").exists()


def test_damaged_weights_are_not_exported(run, project):
    content = (run / "final.ckpt").read_bytes()
    place = content.index(torch.ones(3).numpy().tobytes())
    (run / "final.ckpt").write_bytes(content[:place] + b"\1" + content[place + 1 :])
    with pytest.raises(UserError, match=r"final\.ckpt: damaged: final/data/0 in it does not have"):
        export(run, project / "out")
    assert not (project / "out").exists()
