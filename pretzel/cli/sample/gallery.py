"""A folder of drawn images, whole at every moment: pictures, prompts, how sampled, one sheet."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pretzel.errors import UserError
from pretzel.files.atomic import write_json, write_text
from pretzel.generation.pictures import pictures, save_png, sheet
from pretzel.generation.record import work_record
from pretzel.training.loading import Draws, TellsHow

ON_SHEET = 256
"""Pictures on the contact sheet, at most: the first ones."""
COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One line of ``prompts.json``.

    Attributes:
        file: Name of the picture.
        prompt: What was asked for.
        seed: Seed of the noise.
        draw: Which draw of this prompt it is, from 0.
    """

    file: str
    prompt: str
    seed: int
    draw: int


def wanted(prompts: Sequence[str], num: int, seed: int) -> list[Drawn]:
    """Return what is to be drawn: ``num`` images of every prompt, one prompt after the other."""
    draws: Counter[str] = Counter()
    asked: list[Drawn] = []
    for prompt in prompts:
        for _ in range(num):
            asked.append(
                Drawn(file=f"{len(asked):05d}.png", prompt=prompt, seed=seed, draw=draws[prompt])
            )
            draws[prompt] += 1
    return asked


def draw_gallery(
    module: Draws, asked: Sequence[Drawn], folder: Path, *, batch_size: int, columns: int = COLUMNS
) -> None:
    """Draw images and write them into a folder, which is made once the first ones are there.

    Args:
        module: What draws.
        asked: What is drawn, from :func:`wanted`.
        folder: Receives the pictures, ``prompts.json``, ``grid.png``, and ``sampling.json`` from a
            module that can tell: its record, the seed, and the images and network evaluations per
            block of every batch.
        batch_size: Images drawn at a time.
        columns: Pictures in a row of the sheet.

    Raises:
        UserError: If the folder cannot be written, or the device's memory does not suffice.
        KeyboardInterrupt: With how far it came; what is there is whole.
    """
    kept: list[Image.Image] = []
    done: list[Drawn] = []
    batches: list[dict[str, Any]] = []
    columns_shown = (
        TextColumn("drawing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns_shown, console=Console(stderr=True)) as progress:
            task = progress.add_task("drawing", total=len(asked))
            for start in range(0, len(asked), batch_size):
                batch = asked[start : start + batch_size]
                for one, picture in zip(batch, _draw(module, batch), strict=True):
                    folder.mkdir(parents=True, exist_ok=True)
                    save_png(picture, folder / one.file)
                    done.append(one)
                    if len(kept) < ON_SHEET:
                        kept.append(picture)
                    progress.advance(task)
                _write_prompts(done, folder)
                if isinstance(module, TellsHow):
                    record = dict(module.sampling_record)
                    work = {name: record.pop(name) for name in work_record([])}
                    batches.append({"images": len(batch), **work})
                    record |= {"seed": batch[0].seed, "batches": batches}
                    write_json(folder / "sampling.json", record)
        save_png(
            sheet(kept, [one.prompt for one in done[: len(kept)]], columns), folder / "grid.png"
        )
    except KeyboardInterrupt as interrupt:
        if done:
            _write_prompts(done, folder)
        where = f"; they are in {folder}" if done else ""
        raise KeyboardInterrupt(
            f"interrupted after {len(done)} of {len(asked)} images{where}"
        ) from interrupt
    except OSError as error:
        raise UserError(f"--out: {folder}: cannot be written ({error.strerror})") from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"--batch_size must be one that fits into the device's memory, got {batch_size}"
        ) from error


def _draw(module: Draws, batch: Sequence[Drawn]) -> list[Image.Image]:
    prompts = [one.prompt for one in batch]
    keys = [f"{one.prompt}#{one.draw}" for one in batch]
    with torch.inference_mode():
        return pictures(module.draw(prompts, keys, seed=batch[0].seed))


def _write_prompts(done: Sequence[Drawn], folder: Path) -> None:
    text = json.dumps([asdict(one) for one in done], indent=1, ensure_ascii=False)
    write_text(folder / "prompts.json", f"{text}\n")
