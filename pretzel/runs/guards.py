"""Guards around a run: refused before it starts, short when it fails, nothing left behind."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus

from pretzel.errors import UserError
from pretzel.files.storage import storage_error
from pretzel.files.weights import read_checkpoint
from pretzel.runs.rank_deaths import exit_with, ranks_observed
from pretzel.runs.run_folder import weights_of

_SHARDED = (".metadata", "meta.pt")
"""Files of a checkpoint that is a folder."""


@contextlib.contextmanager
def guarded(trainer: Trainer, checkpoint: str | None = None) -> Iterator[None]:
    """Run a Trainer's method so that mistakes are short and leave nothing behind.

    Raises:
        UserError: For mistakes found only while running; a log folder made by a run that has not
            taken a step is removed again.
        KeyboardInterrupt: After Lightning's graceful stop, with how far a training came.
    """
    log_folders = _log_folders(trainer)  # not trainer.log_dir, which asks ranks that may be gone
    folder = next(iter(log_folders), trainer.default_root_dir)
    new_folders = [path for path in map(_first_missing, log_folders) if path is not None]
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
    try:
        with ranks_observed(trainer, "above", exit_with):
            yield
    except SystemExit as stop:
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        going_on = (
            f" at step {trainer.global_step}; continue with --ckpt_path and the last checkpoint in "
            f"{folder}"
        )
        is_training = trainer.state.fn == TrainerFn.FITTING
        raise KeyboardInterrupt(f"interrupted{going_on if is_training else ''}") from stop
    except (UserError, MisconfigurationException) as error:
        _remove_if_untrained(trainer, new_folders)
        raise UserError(_one_sentence(error)) from error
    except OSError as error:
        advice = (
            f", stopped at step {trainer.global_step}; checkpoints written before are whole, in "
            f"{folder}"
        )
        is_training = trainer.state.fn == TrainerFn.FITTING
        explained = storage_error(error, folder, advice if is_training else "")
        if explained is None:
            raise
        _remove_if_untrained(trainer, new_folders)
        raise explained from error
    except RuntimeError as error:
        if "Error(s) in loading state_dict" not in str(error):
            raise
        _remove_if_untrained(trainer, new_folders)
        reasons = [line.strip().rstrip(". ") for line in str(error).splitlines()[1:]]
        raise UserError(f"{checkpoint}: does not fit the model: {reasons[0]}") from error
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)  # Lightning leaves Ctrl-C ignored


@runtime_checkable
class ChecksState(Protocol):
    """A module that says itself which states fit it."""

    def check_state(self, state: Mapping[str, torch.Tensor], what: str) -> None:
        """Refuse a state; ``what`` begins the message."""
        ...


def check_checkpoint(path: str | None, model: LightningModule, *, resumes: bool) -> None:
    """Refuse a checkpoint that cannot be read or is of another architecture.

    Args:
        path: A file; None and two of Lightning's words (``last``, ``hpc``) are left to it.
        model: What it will be loaded into.
        resumes: Whether training goes on from it.

    Raises:
        UserError: Naming the file, and the first tensor that does not fit.
    """
    if path is None or path in ("last", "hpc") or "://" in str(path):
        return
    if path == "best":
        raise UserError("ckpt_path: best is known to the process that trained alone: name the file")
    if Path(path).is_dir():
        if any((Path(path) / name).exists() for name in _SHARDED):
            return  # its strategy reads it
        raise UserError(f"ckpt_path: {_newest(Path(path), resumes)}")
    try:
        checkpoint = read_checkpoint(Path(path))
    except UserError as error:
        raise UserError(f"ckpt_path: {error}") from error
    _check_fits(path, checkpoint["state_dict"], model)
    if resumes and "optimizer_states" not in checkpoint:
        raise UserError(
            f"ckpt_path: {path}: holds weights without the state of the optimizer, so that no "
            "training can go on from it; name a checkpoint of the training, such as last.ckpt"
        )


def _check_fits(path: str, saved: Mapping[str, torch.Tensor], model: LightningModule) -> None:
    if isinstance(model, ChecksState):
        model.check_state(saved, f"ckpt_path: {path}")
        return
    own = model.state_dict()
    for name, value in saved.items():
        if name in own and own[name].shape != value.shape:
            raise UserError(
                f"ckpt_path: {path}: of another architecture: {name} is {list(value.shape)} there "
                f"and {list(own[name].shape)} in {type(model).__name__}"
            )
    foreign = [name for name in saved if name not in own]
    if foreign and (model.strict_loading or len(foreign) == len(saved)):
        raise UserError(
            f"ckpt_path: {path}: of another architecture: it holds {foreign[0]}, which "
            f"{type(model).__name__} does not have ({len(foreign)} such tensors)"
        )


def check_last(trainer: Trainer) -> None:
    """Refuse to measure the last checkpoint where there is none: Lightning would measure no other.

    Raises:
        UserError: If no callback of the trainer has written one.
    """
    callbacks = trainer.checkpoint_callbacks
    writers = [one for one in callbacks if isinstance(one, ModelCheckpoint)]
    if not any(one._find_last_checkpoints(trainer) for one in writers):
        raise UserError(
            "ckpt_path: last: no last checkpoint where this run would write one, and the weights "
            "would be untrained: name the file"
        )


def _newest(folder: Path, resumes: bool) -> str:
    """Return that a folder is no checkpoint, and the newest one in it that serves."""
    lasts = [folder / "last.ckpt", folder / "checkpoints" / "last.ckpt"] if resumes else []
    try:
        file = next((last for last in lasts if last.exists()), None) or weights_of(folder)[0]
    except UserError as error:
        return str(error)
    return f"{folder}: is a folder; did you mean {file}?"


def _one_sentence(error: Exception) -> str:
    text = str(error)
    if "Original Traceback" in text:  # raised in a dataloader worker
        name = type(error).__name__
        text = text[text.rfind(f"{name}: ") + len(name) + 2 :]
    return " ".join(text.split())


def _log_folders(trainer: Trainer) -> list[Path]:
    return [Path(logger.log_dir) for logger in trainer.loggers if logger.log_dir]


def _first_missing(folder: Path) -> Path | None:
    """Return the outermost part of a path that does not exist yet."""
    return next((part for part in reversed((folder, *folder.parents)) if not part.exists()), None)


def _remove_if_untrained(trainer: Trainer, new_folders: list[Path]) -> None:
    if trainer.global_step == 0 and trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.finalize("failed")
        for folder in new_folders:
            shutil.rmtree(folder, ignore_errors=True)


def check_writable(trainer: Namespace) -> None:
    """Refuse folders of the parsed arguments of a Trainer that cannot be written.

    Raises:
        UserError: Naming the key and the folder.
    """
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    folders = {"trainer.default_root_dir": trainer.default_root_dir or os.getcwd()}
    for logger in loggers:
        if isinstance(logger, Namespace) and "init_args" in logger:
            folders["trainer.logger.init_args.save_dir"] = logger.init_args.get("save_dir")
    for key, folder in folders.items():
        if folder is None or "://" in str(folder):
            continue
        target = Path(folder).absolute()
        parts = (target, *target.parents)
        existing = next(part for part in parts if part.exists() or part.is_symlink())
        try:
            if not existing.exists():
                raise NotADirectoryError(f"{existing} is a link to nothing")
            if not existing.is_dir():
                raise NotADirectoryError(f"{existing} is a file")
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"{key}: {folder}: cannot be written ({reason})") from error
