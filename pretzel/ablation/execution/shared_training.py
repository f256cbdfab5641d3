"""One training for the runs that differ in evaluation alone: each measures the same weights."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.files.atomic import read_json, write_json

_WEIGHTS, _FITTED = "final.ckpt", "fit.json"


def take_training(plan: Plan, run: PlannedRun, again: Collection[str] = ()) -> bool:
    """Put the weights that another run has trained into the folder of a run; tell if that is done.

    Its process then finds them as its own, and only tests; otherwise it trains, as one that is to
    be trained again by itself. What the other run has logged in validation was measured in another
    way, and is left out.

    Raises:
        UserError: If the folder cannot be written.
    """
    if run.trained_by is None or (run.name in again and run.trained_by not in again):
        return False
    folder, trained = plan.folder(run), RunFolder(path=plan.grid.output / run.trained_by)
    fitted, weights = read_json(trained.path / _FITTED), trained.path / _WEIGHTS
    is_asked_for = (trained.spec or {}).get("identity") == run.identity
    has_its_own = (folder.path / _FITTED).exists()
    if fitted is None or not weights.exists() or not is_asked_for or has_its_own:
        return False
    try:
        _link(weights, folder.path / _WEIGHTS)
    except OSError:
        return False
    metrics = {k: v for k, v in fitted["metrics"].items() if not k.startswith("val")}
    write_json(folder.path / _FITTED, {**fitted, "metrics": metrics})
    return True


def _link(source: Path, target: Path) -> None:
    """Let a file, or a folder of a sharded checkpoint, be in a second place."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copyfile(source, target)
