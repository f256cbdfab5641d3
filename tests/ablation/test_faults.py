"""Disks, clocks and losses that fail: what a cell says, what it leaves, and how it goes on."""

import json
import math
import os
import shutil
import signal
import subprocess
import time

import pytest
from killing import assert_equal, ends, finish, noisy_cell, outcome, start, straight_run, until

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def straight():
    return straight_run()[0]


def failure(folder):
    return json.loads((folder / "failure.json").read_text())


# Checkpoints


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A cell with two checkpoints."""
    folder = noisy_cell(tmp_path_factory.mktemp("killed") / "cell", checkpoint_seconds=0.0)
    ends(folder, -9, "in_training:24")
    assert (folder / "last.ckpt").exists()
    assert (folder / "previous.ckpt").exists()
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "newest cut short": ({"last.ckpt": cut}, "last.ckpt is damaged; continuing from previous.ckpt"),
    "a bit": ({"last.ckpt": flip}, "last.ckpt is damaged; continuing from previous.ckpt"),
    "both": ({"last.ckpt": flip, "previous.ckpt": cut}, "no other checkpoint is left; starting a"),
    "the record": ({"checkpoints.json": os.unlink}, "no other checkpoint is left; starting anew"),
    "killed between two names": ({"last.ckpt": os.unlink}, None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_told_and_others_taken(killed, straight, tmp_path, damage):
    folder = noisy_cell(shutil.copytree(killed, tmp_path / "cell"))
    todo, told = DAMAGES[damage]
    for name, act in todo.items():
        act(folder / name)
    log = ends(folder, 0)
    lines = [line for line in log.splitlines() if "continuing from" in line or "anew" in line]
    assert [told in line for line in lines] == ([True] if told else [])
    assert_equal(straight, outcome(folder))


def test_damaged_weights_are_trained_again_from_the_last_checkpoint(straight, tmp_path):
    folder = noisy_cell(tmp_path / "cell")
    ends(folder, -9, "before_rename_to:result.json")
    flip(folder / "final.ckpt")
    log = ends(folder, 0)
    assert "final.ckpt is damaged; the end of training is run again" in log
    assert "last.ckpt" in log
    assert_equal(straight, outcome(folder))
    assert not list(folder.glob("last*")) + list(folder.glob("prev*")) + list(folder.glob("*.sav*"))


def test_the_clock_may_go_back(killed, straight, tmp_path):
    folder = noisy_cell(shutil.copytree(killed, tmp_path / "cell"))
    os.utime(folder / "previous.ckpt", (4e9, 4e9))  # written in the year 2096
    assert "last.ckpt" in ends(folder, 0, "clock_goes_back")
    found = outcome(folder)
    assert found["result"] == straight["result"]
    assert json.loads((folder / "result.json").read_text())["seconds"] > 0


# Losses


def test_a_loss_that_is_not_finite_is_a_failure_with_its_step(tmp_path):
    folder = noisy_cell(tmp_path / "cell")
    ends(folder, 1, "diverge:15")
    found = failure(folder)
    assert "the training loss is not finite at step 7" in found["error"]
    assert found["step"] == 7  # two batches a step
    assert "on_before_backward" in found["traceback"]
    assert any("not finite" in line for line in found["log"])
    assert found["config"] == json.loads((folder / "run.json").read_text())["config"]


def test_a_metric_that_is_not_a_number_is_none(tmp_path):
    folder = noisy_cell(tmp_path / "cell")
    finish(folder, "metric_is_nan")
    result = json.loads((folder / "result.json").read_text())
    assert math.isnan(result["metrics"]["train/undefined"])


# Disks


@pytest.fixture
def disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, left):
    """Leave that many bytes free."""
    with (folder / "filler").open("wb") as filler:
        room = shutil.disk_usage(folder).free - left
        filler.write(bytes(max(room, 0)))


@pytest.mark.parametrize("left", [20_000, 0])  # less than a checkpoint; nothing
def test_a_full_disk_is_told_and_survived(straight, disk, tmp_path, left):
    folder = noisy_cell(disk / "cell", 0.05)
    process = start(folder, log=tmp_path / "log.txt")
    until((folder / "previous.ckpt").exists)
    fill(disk, left)
    process.join(60)
    log = (tmp_path / "log.txt").read_text()
    assert process.exitcode == 1, log
    told = log.strip().splitlines()[-1]
    assert "cannot be written (No space left on device)" in told
    assert str(folder) in told
    assert (
        not list(folder.glob("*.partial")) + list(folder.glob("*.saving")) + list(folder.glob(".*"))
    )
    if left:
        assert "last.ckpt: cannot be written" in told.replace("last.saving", "last.ckpt")
        assert "No space left" in failure(folder)["error"]
    (disk / "filler").unlink()
    finish(folder)
    assert_equal(straight, outcome(folder))


def test_a_folder_that_may_not_be_written_is_told(disk, tmp_path):
    folder = noisy_cell(disk / "cell", 0.05)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    process = start(folder, log=tmp_path / "log.txt")
    process.join(60)
    log = (tmp_path / "log.txt").read_text()
    assert process.exitcode == 1, log
    assert "cannot be written (Read-only file system)" in log
    assert "Traceback" not in log


# Time


@pytest.mark.parametrize("patch", ["hang_in_training:9", "busy_data:7"])
def test_a_cell_that_hangs_is_ended_and_says_where(straight, tmp_path, patch):
    folder = noisy_cell(tmp_path / "cell", hang_seconds=6)
    log = ends(folder, 1, patch)
    found = failure(folder)
    assert found["error"] == "TimeoutError: no progress for 6 s"
    where = "wait_for_nothing" if "hang" in patch else "searching"
    assert where in found["traceback"]
    assert where in log
    finish(folder)
    assert_equal(straight, outcome(folder))


def test_long_work_without_batches_is_no_hang(straight, tmp_path):
    folder = noisy_cell(tmp_path / "cell", hang_seconds=8)
    finish(folder, "long_metric:12")
    assert_equal(straight, outcome(folder))


def test_a_process_that_is_stopped_for_some_time_has_not_hung(straight, tmp_path):
    folder = noisy_cell(tmp_path / "cell", 0.03, hang_seconds=6)
    process = start(folder)
    until((folder / "last.ckpt").exists)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(9)
    os.kill(process.pid, signal.SIGCONT)
    process.join(120)
    assert process.exitcode == 0, (folder / "log.txt").read_text()
    assert_equal(straight, outcome(folder))
