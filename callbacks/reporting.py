"""How callbacks report numbers, and how ranks agree on them.

Every rank takes part in every exchange, then logs the same value. A checkpoint callback may
therefore monitor any metric on any rank, and no rank waits for one that has left.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL.Image import Image as Picture
from torch.utils.tensorboard.writer import SummaryWriter

Stage = Literal["val", "test"]
NUM_ROWS_SHOWN = 32
"""Most rows of a table in TensorBoard."""
T = TypeVar("T")


def gather(trainer: Trainer, value: T) -> list[T]:
    """Return every rank's value, in rank order; all ranks must call it."""
    if trainer.world_size == 1:
        return [value]
    values: list[T] = [value] * trainer.world_size
    torch.distributed.all_gather_object(values, value)  # plain numbers, few and small
    return values


def means(
    trainer: Trainer, sums: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Return mean and count by name, from every rank's sums and counts; all ranks must call it.

    Names that count nothing are left out.
    """
    parts = gather(trainer, dict(sums))
    values = {}
    for name in sorted({name for part in parts for name in part}):
        pairs = [part[name] for part in parts if name in part]
        total, count = (math.fsum(column) for column in zip(*pairs, strict=True))
        if count:
            values[name] = total / count, count
    return values


def logged_names(*names: str) -> set[str]:
    """Return the names under which :func:`log_values` logs values of these names."""
    return {f"{stage}/{name}" for stage in get_args(Stage) for name in names}


def digest(samples: object) -> str:
    """Return a hash of plain values, or of dataclasses and lists of them, bit by bit."""
    return hashlib.sha256(repr(samples).encode()).hexdigest()


def local_batches(trainer: Trainer, items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield this rank's share of the items in batches; items are dealt out to ranks in turn."""
    local = items[trainer.global_rank :: trainer.world_size]
    for start in range(0, len(local), size):
        yield local[start : start + size]


def log_values(module: LightningModule, stage: Stage, values: Mapping[str, float]) -> None:
    """Log values that are equal on all ranks as ``<stage>/<name>``."""
    for name, value in values.items():
        # The mean over ranks of equal values is that value; it keeps Lightning from warning.
        module.log(f"{stage}/{name}", float(value), batch_size=1, sync_dist=True)


def tensorboards(trainer: Trainer) -> list[SummaryWriter]:
    """Return the TensorBoard writers of this run; empty on ranks other than zero."""
    if not trainer.is_global_zero:
        return []
    return [x.experiment for x in trainer.loggers if isinstance(x, TensorBoardLogger)]


def show_sheet(
    trainer: Trainer, folder: str | None, stage: Stage, name: str, picture: Picture
) -> Path | None:
    """Write ``<folder>/<name>/step-00001000.png``, and the image ``<stage>/<name>``.

    At test the file is ``test-step-...``. Rank zero alone writes; ``folder`` is the trainer's
    ``log_dir``, which all ranks must have asked for, and None writes no file.

    Returns:
        The file; None if there is none.
    """
    if not trainer.is_global_zero:
        return None
    for board in tensorboards(trainer):
        board.add_image(f"{stage}/{name}", np.asarray(picture), trainer.global_step, None, "HWC")
    if folder is None:
        return None
    prefix = "test-" if stage == "test" else ""
    path = Path(folder) / name / f"{prefix}step-{trainer.global_step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def show_table(
    trainer: Trainer, name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Show rows in TensorBoard under a title, spread evenly over all where they are many."""
    table = [columns, ["---"] * len(columns), *evenly(rows, NUM_ROWS_SHOWN)]
    lines = [title, "", *(f"| {' | '.join(row)} |" for row in table)]
    for board in tensorboards(trainer):
        board.add_text(name, "\n".join(lines), trainer.global_step)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Return ``count`` of the items, at most all, spread evenly over them."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
