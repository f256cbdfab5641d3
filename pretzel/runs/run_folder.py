"""Where the weights of a run lie: of ``pretzel fit``, of a grid, of an export."""

import re
import stat
from pathlib import Path

from pretzel.errors import UserError
from pretzel.files.torch_file import is_archive

EXPORT = "weights.safetensors"
_IN_ORDER = (EXPORT, "final.ckpt", "last.ckpt", "previous.ckpt")
"""Of a run of a grid the newest first; an export has the first alone."""
_LAST = re.compile(r"last(?:-v(\d+))?\.ckpt")
_STEP = re.compile(r"step=(\d+)")


def weights_of(path: Path) -> tuple[Path, Path | None]:
    """Return the newest weights in a folder, or in a file, and the configuration beside them.

    Raises:
        UserError: If there is no such path, or it is no run, with where runs are.
    """
    try:
        kind = path.stat().st_mode
    except OSError as error:  # a name that is too long, too
        raise UserError(f"{path}: no such run, export or checkpoint ({error.strerror})") from error
    if stat.S_ISREG(kind):
        return path, _config(path.parent)
    if not stat.S_ISDIR(kind):
        raise UserError(f"{path}: no such run, export or checkpoint (it is a device)")
    if (path / ".metadata").exists():
        return path, None  # a sharded checkpoint
    for name in _IN_ORDER:
        if (path / name).exists():
            return path / name, _config(path)
    newest = max((path / "checkpoints").glob("*.ckpt"), key=_age, default=None)
    if newest is not None:
        return newest, _config(path)
    raise UserError(f"{path}: neither a run nor an export{_runs_below(path)}")


def is_checkpoint(path: Path) -> bool:
    """Tell a checkpoint of Lightning, whole or sharded, from exported weights."""
    return path.is_dir() or is_archive(path) or path.suffix == ".ckpt"


def _config(folder: Path) -> Path | None:
    config = folder / "config.yaml"
    return config if config.is_file() else None


def _age(path: Path) -> tuple[bool, int, str]:
    """Order checkpoints of ModelCheckpoint: by step, and ``last.ckpt`` behind all others."""
    last, step = _LAST.fullmatch(path.name), _STEP.search(path.name)
    if last is not None:
        return True, int(last[1] or 0), path.name
    return False, int(step[1]) if step else -1, path.name


def _runs_below(path: Path) -> str:
    """Return where the runs are, if the folder is that of a grid or of a logger."""
    if (path / "plan.json").is_file():
        checkpoints = sorted(path.glob("*/seed*/*.ckpt"))
    else:
        checkpoints = sorted(path.glob("**/checkpoints/*.ckpt"))
    if not checkpoints:
        return " (no weights.safetensors, final.ckpt, last.ckpt or checkpoints/*.ckpt in it)"
    run = checkpoints[-1].parent
    return f"; did you mean {run.parent if run.name == 'checkpoints' else run}?"
