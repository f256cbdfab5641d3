"""Cells in real processes, forked from one that has the imports; what they end with, compared."""

import functools
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import torch
from fork_server import fork, serve, write_into

from pretzel.ablation.engines.local import end_group

HERE = Path(__file__).parent


def start(folder: Path, *patches: str, log: Path | None = None) -> multiprocessing.Process:
    """Start a cell as its runner does.

    Args:
        folder: Holds run.json.
        patches: Names of functions of :mod:`moments` that are called in the process before.
        log: Where it writes; log.txt in the folder by default.
    """
    if log is None:
        (folder / "failure.json").unlink(missing_ok=True)
    return fork(_cell, str(folder), patches, str(log or folder / "log.txt"))


def _cell(folder: str, patches: tuple[str, ...], log_file: str) -> None:
    os.setsid()
    write_into(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    os.chdir(Path(folder).parent)
    torch.set_num_threads(1)
    # else readers of data would be children of another server, and outlive a cell that is killed
    multiprocessing.set_start_method("fork", force=True)
    import moments

    from pretzel.ablation.worker.process import main

    for patch in patches:
        name, *arguments = patch.split(":")
        getattr(moments, name)(*arguments)
    os._exit(main(Path(folder)))


def write_cell(folder: Path, config: dict, **spec) -> Path:
    """Write what the runner writes."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"identity": "x", "export": False, "tests": True, "checkpoint_seconds": 0.05}
    (folder / "run.json").write_text(json.dumps(values | {"config": config} | spec))
    return folder


def noisy_cell(folder: Path, delay: float = 0.01, **spec) -> Path:
    """Write a cell of the project that draws from everything; a batch takes ``delay`` seconds."""
    logger = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(folder), "name": "", "version": ""},
    }
    trainer = {
        "max_steps": 21, "accumulate_grad_batches": 2, "val_check_interval": 5,
        "log_every_n_steps": 1, "accelerator": "cpu", "devices": 1, "logger": logger,
        "enable_progress_bar": False, "enable_model_summary": False,
        "enable_checkpointing": False, "default_root_dir": str(folder),
        "callbacks": [
            {"class_path": "callbacks.EMAWeightAveraging", "init_args": {"decay": 0.7}},
            {"class_path": "noisy.Counts"},
            {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
        ],
    }  # fmt: skip
    config = {
        "seed_everything": 3,
        "trainer": trainer,
        "model": {"class_path": "noisy.Noisy", "init_args": {"delay": delay}},
        "data": {"class_path": "noisy.OrderedData"},
    }
    return write_cell(folder, config, **spec)


@functools.cache
def straight_run() -> tuple[dict, float]:
    """Return what the uninterrupted noisy cell ends with, and how long it takes."""
    serve()
    with tempfile.TemporaryDirectory() as name:
        folder = noisy_cell(Path(name) / "cell")
        begun = time.monotonic()
        finish(folder)
        return outcome(folder), time.monotonic() - begun


def finish(folder: Path, *patches: str, seconds: float = 120) -> None:
    """Run a cell to its end."""
    ends(folder, 0, *patches, seconds=seconds)


def ends(folder: Path, code: int, *patches: str, seconds: float = 120) -> str:
    """Run a cell that ends with an exit code; return what it has said."""
    before = (folder / "log.txt").stat().st_size if (folder / "log.txt").exists() else 0
    process = start(folder, *patches)
    process.join(seconds)
    log = (folder / "log.txt").read_text()[before:]
    assert process.exitcode == code, f"exit code {process.exitcode}: {log[-3000:]}"
    return log


def kill_after(folder: Path, seconds: float) -> bool:
    """Start a cell and kill it; tell whether it was still running."""
    process = start(folder)
    process.join(seconds)
    running = process.exitcode is None
    if running:
        os.kill(process.pid, signal.SIGKILL)
        end_group(process.pid)  # its readers of data, as an engine does
        process.join()
    return running


def outcome(folder: Path) -> dict:
    """Return everything that must not depend on interruptions."""
    checkpoint = torch.load(folder / "final.ckpt", weights_only=True)
    result = json.loads((folder / "result.json").read_text())
    return {
        "weights": {k: checkpoint.get(k) for k in ("state_dict", "current_model_state")},
        "result": {k: result[k] for k in ("metrics", "steps", "parameters")},
        "scalars": scalars(folder),
    }


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """Return what TensorBoard has, the last value where a step was trained twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda p: p.stat().st_mtime):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found |= {(tag, e.step): e.value for e in events.Scalars(tag)}
    return {k: v for k, v in found.items() if "seconds" not in k[0]}


def assert_equal(one: dict, other: dict) -> None:
    """Compare two outcomes bit by bit."""
    for part, weights in one["weights"].items():
        again = other["weights"][part]
        assert (weights is None) == (again is None), part
        for name in weights or {}:
            assert torch.equal(weights[name], again[name]), f"{part} {name}"
    assert other["result"] == one["result"], (one["result"], other["result"])
    odd = set(other["scalars"]) ^ set(one["scalars"])
    assert not odd, odd
    different = {k: (v, other["scalars"][k]) for k, v in one["scalars"].items()
                 if v != other["scalars"][k]}  # fmt: skip
    assert not different, different


def stop(folder: Path, ready, *signals: int) -> str:
    """Start a cell, send it signals as soon as it is ready, and return what it has said."""
    process = start(folder)
    until(ready)
    for number in signals:
        os.kill(process.pid, number)
    process.join(60)
    log = (folder / "log.txt").read_text()
    assert process.exitcode == 130, log[-3000:]
    return log


def survive(folder: Path, kills: int, duration: float, draw: random.Random) -> list[float]:
    """Kill a cell at random moments of its life, then let it finish; return the moments."""
    moments = []
    for _ in range(kills):
        moments.append(draw.uniform(0, duration))
        print(f"kill after {moments[-1]:.3f} s")
        if not kill_after(folder, moments[-1]):
            break
    finish(folder)
    return moments


def until(condition, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)
