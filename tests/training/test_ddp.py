"""A step is the same from one batch, from micro-batches and from two processes."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from ddp_step import MODULES, pretzel_module, save_steps_of_two, step, uneven
from fork_server import fork, fork_command
from tiny import joined

from pretzel.training import PretzelModule

ROOT = Path(__file__).parents[2]
BASE = ROOT / "ablations" / "base" / "easy_vqa.yaml"
SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"
FID = {  # in features that are cheap: it reads all of the validation images
    "class_path": "callbacks.FID",
    "init_args": {"extractor": {"class_path": "callbacks.JudgeFeatures"}},
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory) -> dict:
    """Return the steps of all modules on two processes."""
    output = tmp_path_factory.mktemp("ddp") / "steps.pt"
    process = fork(save_steps_of_two, str(output))
    process.join(240)
    assert process.exitcode == 0
    return torch.load(output, weights_only=True)


def assert_same(one: dict, other: dict) -> None:
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", MODULES)
def test_two_processes_take_the_step_of_one_on_the_joined_batch(of_two_processes, name):
    # One process has images and targets, the other neither images nor as many targets: averaging
    # means of processes instead of the global sums would be off by far more than rounding.
    module, batches = MODULES[name]
    assert_same(step(module, [joined(*batches())], 1), of_two_processes[name])


@pytest.mark.parametrize("pack_length", [None, 40])
def test_micro_batches_take_the_step_of_the_whole_batch(of_two_processes, pack_length):
    # three documents, three and one; on two processes three and two, and two
    make = partial(pretzel_module, pack_length=pack_length)
    batch = [joined(*uneven())]
    whole = step(make, batch, 1, gradient_clip_val=0.5)
    assert_same(whole, step(partial(make, micro_batch_size=3), batch, 1, gradient_clip_val=0.5))
    assert_same(whole, of_two_processes["micro"])


def test_the_command_line_trains_and_tests_with_two_processes(tmp_path):
    # All callbacks of the shipped configuration: what one rank alone asks of all ranks, hangs. The
    # last of the stages has processes that are not forked (test_stages.py).
    config = yaml.safe_load(BASE.read_text())
    small = yaml.safe_load(SHRINK.read_text())
    small["trainer"] |= {
        "devices": 2,
        "strategy": "ddp_fork",
        "default_root_dir": str(tmp_path),
        "callbacks": config["trainer"]["callbacks"],
    }
    sizes = {
        "Generation": {
            "metrics": [{"class_path": "callbacks.ShapeAccuracy"}, FID],
            "num_images": 4,
            "batch_size": 2,
            "every_n_validations": 1,
        },
        "SampleGrid": {"num_images": 2, "columns": 2},
        "VQAAccuracy": {
            "num_questions": 8,
            "num_validation_questions": 8,
            "blind_baseline": False,  # reads all of the training questions
        },
        "ModelCheckpoint": {"dirpath": str(tmp_path / "checkpoints")},
        "PredictionWriter": {"folder": str(tmp_path / "pictures")},
    }
    for callback in small["trainer"]["callbacks"]:
        name = callback["class_path"].rpartition(".")[2]
        callback.setdefault("init_args", {}).update(sizes.get(name, {}))
    small["trainer"]["limit_predict_batches"] = 1
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    files = ["-c", str(BASE), "-c", str(tmp_path / "small.yaml")]
    checkpoint = ["--ckpt_path", str(tmp_path / "checkpoints" / "last.ckpt")]
    commands = ["fit", *files], ["predict", *files, *checkpoint]
    process = fork_command(tmp_path / "log.txt", *commands)
    process.join(300)
    assert process.exitcode == 0, (tmp_path / "log.txt").read_text()[-6000:]
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 16
    run = tmp_path / "lightning_logs" / "version_0"
    assert (run / "config.yaml").exists()
    module = PretzelModule.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert module.configuration == saved["model"]
