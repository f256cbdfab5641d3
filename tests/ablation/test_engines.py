"""Engines: a cell in a process of its own, forked or not; nothing leaks, and it can be stopped."""

import argparse
import json
import os
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
from lab_files import BASE

from pretzel.ablation.engines.device_slots import device_slots
from pretzel.ablation.engines.fork_server import Forks
from pretzel.ablation.engines.options import engine_of
from pretzel.ablation.engines.processes import Processes
from pretzel.ablation.ledger import RunFolder
from pretzel.errors import UserError
from pretzel.files.atomic import write_json

TWO = [{"PLACE": "first"}, {"PLACE": "second"}]
LEAK = {"class_path": "leaking.Leaks", "init_args": {}}
LEAKING = '''
import os
import random

import torch
from lightning.pytorch import Callback


class Leaks(Callback):
    """Writes down what it finds, and changes everything that a process shares."""

    def on_train_start(self, trainer, pl_module):
        found = [
            os.environ.get("PLACE"), os.getcwd(), os.environ.get("LEAKED"),
            str(torch.get_default_dtype()), torch.rand(()).item(), random.random(), os.getppid(),
        ]
        with open(f"{trainer.default_root_dir}/found.txt", "w") as file:
            file.write("|".join(map(str, found)))

    def on_test_end(self, trainer, pl_module):
        os.environ["LEAKED"] = "yes"
        torch.manual_seed(99)
        random.seed(99)
        torch.set_default_dtype(torch.float64)
        os.chdir("/")
'''


def cell(name, *, delay=0.0, steps=4):
    path = Path("runs") / name
    config = json.loads(json.dumps(BASE))
    config["trainer"] |= {
        "max_steps": steps,
        "default_root_dir": str(path.resolve()),
        "logger": False,
        "enable_checkpointing": False,
        "callbacks": [LEAK],
    }
    config["model"]["init_args"]["delay"] = delay
    config["seed_everything"] = 3
    write_json(
        path / "run.json",
        {"name": name, "identity": "i", "export": False, "checkpoint_seconds": 5, "config": config},
    )
    return path


def wait(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


@pytest.fixture
def leaking(project, monkeypatch):
    Path("leaking.py").write_text(LEAKING)
    os.environ["PYTHONPATH"] += f":{project}"
    monkeypatch.setattr(sys, "path", [*sys.path, str(project)])
    return project


def found_by(path):
    return (path / "found.txt").read_text().split("|")


@pytest.mark.timeout(600)
def test_forks_are_fresh_processes_of_one_server(leaking):
    engine = Forks(TWO)
    try:
        paths = [cell(f"c{i}") for i in range(3)]
        assert engine.capacity() == 2
        running = engine.start(paths[:2])
        assert engine.capacity() == 0
        wait(lambda: all([one.poll() is not None for one in running]))
        assert engine.capacity() == 2
        (last,) = engine.start(paths[2:])
        wait(lambda: last.poll() is not None)
        assert [one.poll() for one in (*running, last)] == [0, 0, 0], [
            (path / "log.txt").read_text()[-2000:] for path in paths
        ]
        found = [found_by(path) for path in paths]
        assert [line[0] for line in found] == ["first", "second", "first"]
        for place, folder, leaked, dtype, *_ in found:
            assert (folder, leaked, dtype) == (str(leaking), "None", "torch.float32"), place
        assert len({tuple(line[4:6]) for line in found}) == 1  # the same random numbers
        (server,) = {int(line[6]) for line in found}  # forked, all three
        assert server != os.getpid()
        assert RunFolder(path=paths[2]).result["metrics"]["test/loss"] > 0
    finally:
        engine.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [Forks, Processes])
def test_a_cell_is_interrupted_killed_and_lost(leaking, monkeypatch, kind):
    def no_server(fds):
        raise ConnectionRefusedError

    engine = kind(TWO)
    try:
        stopped, killed = (cell(name, delay=0.05, steps=4000) for name in ("stopped", "killed"))
        first, second = engine.start([stopped, killed])
        second.kill()
        wait((stopped / "found.txt").exists)
        first.interrupt()
        wait(lambda: first.poll() is not None and second.poll() is not None)
        assert first.poll() == 130  # saved and stopped
        assert (stopped / "last.ckpt").exists()
        assert second.poll() == -signal.SIGKILL
        if kind is Forks:
            lost = cell("lost", delay=0.05, steps=4000)
            (third,) = engine.start([lost])
            wait(lambda: (lost / "found.txt").exists())
            os.kill(int(found_by(lost)[6]), signal.SIGKILL)  # the server
            wait(lambda: third.poll() is not None)
            assert third.poll() == 130
            wait(lambda: not RunFolder(path=lost).locked())  # it was told to save and stop
            assert (lost / "last.ckpt").exists()
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            (fourth,) = engine.start([lost])  # from another server
            wait(lambda: RunFolder(path=lost).locked())
            tasks = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/task")
            # of several threads a fork has but one, and the locks that the others held
            assert not tasks.exists() or len(os.listdir(tasks)) == 1
            fourth.kill()
            wait(lambda: fourth.poll() is not None)
            monkeypatch.setattr(forkserver, "connect_to_new_process", no_server)
            with pytest.raises(UserError, match="--engine processes"):
                engine.start([lost])
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("number", "per_gpu", "message"),
    [(0, 1, "--slots must be at least 1, got 0"), (None, 0, "--per-gpu must be at least 1, got 0")],
)
def test_slots_that_cannot_be(number, per_gpu, message):
    with pytest.raises(UserError, match=message):
        device_slots(number, None, per_gpu)


def test_slots_over_gpus(monkeypatch):
    monkeypatch.setattr("pretzel.ablation.engines.device_slots._num_gpus", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def seen(*args):
        return [one["CUDA_VISIBLE_DEVICES"] for one in device_slots(*args)]

    assert seen(None, None, 1) == ["0", "1"]
    assert seen(None, [[1]], 2) == ["1", "1"]
    assert seen(None, [[0, 1]], 2) == ["0,1", "0,1"]  # two cells, each on both
    assert seen(3, None, 2) == ["0", "1", "0"]
    assert seen(2, [], 1) == ["", ""]
    with pytest.raises(UserError, match="no GPU 2: there are 2"):
        device_slots(None, [[2]], 1)
    with pytest.raises(UserError, match="must name each GPU once, got 0 2 x"):
        device_slots(None, [[0, 1], [0]], 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert seen(None, [[1]], 1) == ["GPU-b"]
    assert seen(None, [[1, 0]], 1) == ["GPU-b,GPU-a"]


def test_gpus_as_a_user_writes_them(monkeypatch):
    monkeypatch.setattr("pretzel.ablation.engines.device_slots._num_gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def chosen(gpus):
        options = {"engine": "processes", "slots": None, "gpus": gpus, "per_gpu": 1, "slurm": []}
        engine = engine_of(argparse.Namespace(**options), Path("runs"))()
        return [one["CUDA_VISIBLE_DEVICES"] for one in engine.slots]

    assert chosen(None) == ["0", "1", "2", "3"]
    assert chosen("2,3") == ["2", "3"]
    assert chosen("0+1,2+3") == ["0,1", "2,3"]
    with pytest.raises(UserError, match=r"--gpus must be .* such as 0\+1,2\+3, .* got '0-3'"):
        chosen("0-3")
