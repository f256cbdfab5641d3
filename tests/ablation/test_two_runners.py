"""Two runners of one grid, started at the same time: every cell runs once."""

from collections import Counter
from pathlib import Path

import pytest
from fork_server import fork_command
from killing import until
from lab_files import BASE, write

from pretzel.ablation.ledger import RunFolder

CELLS = [f"{arm}/seed{seed}" for arm in ("linear", "cubic", "steep") for seed in range(4)]
CUBIC = {"class_path": "lab.Cubic", "init_args": {"scale": 0.1}}
NOTES = '''
import multiprocessing

from lightning.pytorch import Callback


class Notes(Callback):
    """Notes each time that a cell is trained, and the runner that has started it."""

    def on_train_start(self, trainer, pl_module):
        with open("trained.txt", "a") as file:
            file.write(f"{trainer.logger.save_dir} {multiprocessing.parent_process().pid}\\n")
'''


def trained():
    """Return a pair of cell and runner for each time that a cell was trained."""
    path = Path("trained.txt")
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(line.rsplit(" ", 1)) for line in lines]


@pytest.mark.timeout(600)
def test_twelve_cells_run_once(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project))
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
    names = ("first.txt", "second.txt")
    command = ["grid", "run", "grid.yaml", "--slots", "1"]
    runners = [fork_command(name, command) for name in names]
    until(lambda: len(trained()) == 2 or any(one.exitcode is not None for one in runners))
    hold.unlink()
    for one in runners:
        one.join(300)
    said = [Path(name).read_text() for name in names]
    assert [one.exitcode for one in runners] == [0, 0], said

    folders = {cell: RunFolder(path=Path("runs/grid") / cell) for cell in CELLS}
    assert len(trained()) == len({cell for cell, _ in trained()}) == len(CELLS), trained()
    shares = Counter(runner for _, runner in trained())
    assert len(shares) == 2, shares
    for cell, folder in folders.items():
        assert (folder.path / "log.txt").read_text().count("Seed set to") == 1, cell
        assert folder.result["steps"] == 6, cell
    for told in said:  # each has the whole story
        assert all(f"{cell}: done" in told for cell in CELLS)
        assert "| **linear** (baseline) | 4 |" in told
