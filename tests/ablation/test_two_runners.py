"""Two runners of one grid, started at the same time: every cell runs once."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from lab_files import BASE, write

from pretzel.ablation.ledger import RunFolder

CELLS = [f"{arm}/seed{seed}" for arm in ("linear", "cubic", "steep") for seed in range(4)]
CUBIC = {"class_path": "lab.Cubic", "init_args": {"scale": 0.1}}
NOTES = '''
import os

from lightning.pytorch import Callback


class Notes(Callback):
    """Notes each time that a cell is trained, and the server that it was forked from."""

    def on_train_start(self, trainer, pl_module):
        with open("trained.txt", "a") as file:
            file.write(f"{trainer.logger.save_dir} {os.getppid()}\\n")
'''


def trained():
    """Return a pair of cell and server for each time that a cell was trained."""
    path = Path("trained.txt")
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(line.rsplit(" ", 1)) for line in lines]


@pytest.mark.timeout(600)
def test_twelve_cells_run_once(project):
    Path("notes.py").write_text(NOTES)
    trainer = {**BASE["trainer"], "callbacks": [{"class_path": "notes.Notes"}]}
    model = {**BASE["model"]["init_args"], "delay": 0.05}
    model = {**BASE["model"], "init_args": model}
    write("base.yaml", {**BASE, "trainer": trainer, "model": model})
    arms = {"linear": {}, "cubic": {"model.features": CUBIC}, "steep": {"model.lr": 0.02}}
    grid = {
        "base": "base.yaml",
        "axes": {"arm": arms},
        "seeds": [*range(4)],
        "baseline": {"arm": "linear"},
        "metrics": {"test/loss": "min"},
    }
    write("grid.yaml", grid)
    hold = Path("hold")  # the first cell of each trains on when the other's does
    hold.touch()
    path = os.pathsep.join([str(project), os.environ["PYTHONPATH"]])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    names, runners = ("first.txt", "second.txt"), []
    for name in names:
        command = [sys.executable, "-m", "pretzel", "grid", "run", "grid.yaml", "--slots", "1"]
        with Path(name).open("w") as out:
            runners.append(
                subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
            )
    end = time.monotonic() + 300
    while len(trained()) < 2:
        told = [Path(name).read_text() for name in names]
        assert time.monotonic() < end, told
        assert all(one.poll() is None for one in runners), told
        time.sleep(0.05)
    hold.unlink()
    codes = [one.wait(timeout=300) for one in runners]
    said = [Path(name).read_text() for name in names]
    assert codes == [0, 0], said

    folders = {cell: RunFolder(path=Path("runs/grid") / cell) for cell in CELLS}
    assert len(trained()) == len({cell for cell, _ in trained()}) == len(CELLS), trained()
    shares = Counter(server for _, server in trained())
    assert len(shares) == 2, shares
    for cell, folder in folders.items():
        assert (folder.path / "log.txt").read_text().count("Seed set to") == 1, cell
        assert folder.result["steps"] == 6, cell
    for told in said:  # each has the whole story
        assert all(f"{cell}: done" in told for cell in CELLS)
        assert "| **linear** (baseline) | 4 |" in told
