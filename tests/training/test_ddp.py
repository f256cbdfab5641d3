"""Two processes do what one does with the joined batch."""

import subprocess
import sys
from pathlib import Path

import torch
import yaml

from pretzel.training import PretzelModule

ROOT = Path(__file__).parents[2]
BASE = ROOT / "ablations" / "base" / "easy_vqa.yaml"
SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"
SCRIPT = Path(__file__).with_name("ddp_step.py")


def step(devices: int, output: Path) -> dict:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(devices), str(output)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return torch.load(output, weights_only=True)


def test_a_step_of_two_processes_is_the_step_of_one_on_the_joined_batch(tmp_path):
    # One process has images and targets, the other neither images nor as many targets: averaging
    # means of processes instead of the global sums would be off by far more than rounding.
    one, two = step(1, tmp_path / "one.pt"), step(2, tmp_path / "two.pt")
    assert (one["world"], two["world"]) == (1, 2)
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_command_line_trains_and_tests_with_two_processes(tmp_path):
    # All callbacks of the shipped configuration: what one rank alone asks of all ranks, hangs.
    config = yaml.safe_load(BASE.read_text())
    small = yaml.safe_load(SHRINK.read_text())
    small["trainer"] |= {
        "devices": 2,
        "strategy": "ddp",
        "default_root_dir": str(tmp_path),
        "callbacks": config["trainer"]["callbacks"],
    }
    sizes = {
        "Generation": {"num_images": 4, "batch_size": 2, "every_n_validations": 1},
        "SampleGrid": {"num_images": 2, "columns": 2},
        "VQAAccuracy": {"num_questions": 8, "num_validation_questions": 8},
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
    for command in (["fit", *files], ["predict", *files, *checkpoint]):
        done = subprocess.run(
            [sys.executable, "-m", "pretzel", *command],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 16
    run = tmp_path / "lightning_logs" / "version_0"
    assert (run / "config.yaml").exists()
    module = PretzelModule.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert module.configuration == saved["model"]
