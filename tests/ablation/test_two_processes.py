"""A cell of two processes, by Lightning's ddp over gloo: continued, stopped, and none left over."""

import json
import os
import re
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
from lab_files import BASE

from pretzel.ablation.engines.fork_server import Forks
from pretzel.ablation.engines.processes import Processes
from pretzel.ablation.ledger import RunFolder
from pretzel.files.atomic import write_json

STEPS = 60
RANKS = '''
import os

import torch.distributed
from lightning.pytorch import Callback


class Ranks(Callback):
    """Writes down which processes train."""

    def on_train_start(self, trainer, pl_module):
        assert torch.distributed.get_backend() == "gloo"
        with open(f"rank{trainer.global_rank}", "a") as file:
            file.write(f"{os.getpid()}\\n")
'''


def two_processes(name, *, delay):
    path = Path("runs") / name
    config = json.loads(json.dumps(BASE))
    config["trainer"] |= {
        "max_steps": STEPS,
        "devices": 2,
        "strategy": "ddp",
        "logger": False,
        "enable_checkpointing": False,
        "callbacks": [{"class_path": "ranks.Ranks"}],
    }
    config["model"]["init_args"]["delay"] = delay
    config["seed_everything"] = 3
    spec = {"name": name, "identity": "i", "export": False, "checkpoint_seconds": 0.2}
    write_json(path / "run.json", spec | {"config": config})
    return RunFolder(path=path)


def wait(condition, cell, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, (cell.path / "log.txt").read_text()[-3000:]
        time.sleep(0.05)


def processes(times):
    """Return the processes that train, when they do for the n-th time; None before."""
    files = [Path(f"rank{rank}") for rank in range(2)]
    found = [file.read_text().split() if file.exists() else [] for file in files]
    return [int(one[-1]) for one in found] if all(len(one) == times for one in found) else None


def lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())


def gone(ranks, cell):
    """Wait until none of them lives: who is killed needs a moment to go."""
    wait(lambda: not any(map(lives, ranks)), cell, 60)


@pytest.fixture(params=[Forks, pytest.param(Processes, marks=pytest.mark.slow)])
def engine(project, monkeypatch, request):
    Path("ranks.py").write_text(RANKS)
    os.environ["PYTHONPATH"] += f":{project}"
    monkeypatch.setattr(sys, "path", [*sys.path, str(project)])
    made = request.param([{}])
    yield made
    made.close()


@pytest.mark.timeout(600)
def test_stopped_continued_done(engine):
    cell = two_processes("cell", delay=0.05)
    (started,) = engine.start([cell.path])
    wait(lambda: cell.progress.get("step"), cell)
    started.interrupt()
    wait(lambda: started.poll() is not None, cell, 30)
    assert started.poll() == 130
    gone(processes(1), cell)
    assert cell.failure is None
    stopped = cell.progress["step"]
    assert 0 < stopped < STEPS
    assert (cell.path / "last.ckpt").exists()

    (started,) = engine.start([cell.path])
    wait(lambda: started.poll() is not None, cell)
    assert started.poll() == 0, (cell.path / "log.txt").read_text()[-3000:]
    gone(processes(2), cell)
    assert cell.result["steps"] == STEPS
    assert cell.result["metrics"]["test/loss"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_none_is_left_over(engine):
    cell = two_processes("cell", delay=0.5)

    (started,) = engine.start([cell.path])
    wait(lambda: processes(1) is not None, cell)
    os.kill(processes(1)[0], signal.SIGKILL)  # as for want of memory
    wait(lambda: started.poll() is not None, cell)
    assert started.poll() == -signal.SIGKILL
    gone(processes(1), cell)
    assert cell.failure is None  # the second one's complaint would say nothing

    (started,) = engine.start([cell.path])
    wait(lambda: processes(2) is not None, cell)
    started.kill()
    wait(lambda: started.poll() is not None, cell)
    assert started.poll() == -signal.SIGKILL
    gone(processes(2), cell)

    (started,) = engine.start([cell.path])
    wait(lambda: processes(3) is not None, cell)
    os.kill(processes(3)[1], signal.SIGKILL)
    wait(lambda: started.poll() is not None, cell)
    gone(processes(3), cell)
    expected = (
        rf"rank 1 of 2 .* ended by signal 9; its messages are in {cell.path.resolve()}/log.txt"
    )
    assert re.search(expected, cell.failure["error"])
    (cell.path / "failure.json").unlink()

    (started,) = engine.start([cell.path])
    wait(lambda: processes(4) is not None, cell)
    if isinstance(engine, Forks):  # nobody is left to tell of their end: they save and stop
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
        wait(lambda: started.poll() is not None, cell)
        gone(processes(4), cell)
        assert cell.failure is None
        assert (cell.path / "last.ckpt").exists()
    else:
        engine.close()
        gone(processes(4), cell)
