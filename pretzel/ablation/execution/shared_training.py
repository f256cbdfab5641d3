"""One training for the runs that differ in evaluation alone: each measures the same weights."""

import os
import shutil
from pathlib import Path

from pretzel.ablation.ledger import RunFolder
from pretzel.files.atomic import read_json, write_json

_WEIGHTS, _FITTED = "final.ckpt", "fit.json"


def take_training(folder: RunFolder, trained: RunFolder, identity: str) -> bool:
    """Put the weights that another run has trained into the folder of a run; tell if that is done.

    Its process then finds them as its own, and only tests; otherwise it trains. What the other run
    has logged in validation was measured in another way, and is left out.

    Raises:
        UserError: If the folder cannot be written.
    """
    fitted, weights = read_json(trained.path / _FITTED), trained.path / _WEIGHTS
    is_asked_for = (trained.spec or {}).get("identity") == identity
    if fitted is None or not weights.exists() or not is_asked_for:
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
