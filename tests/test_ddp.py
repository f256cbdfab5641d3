"""Two processes do what one does with the joined batch."""

import subprocess
import sys
from pathlib import Path

import torch

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
