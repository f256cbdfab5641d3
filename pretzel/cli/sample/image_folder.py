"""A folder of generated images, whole at every moment: pictures, prompts, how sampled, a sheet."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pretzel.errors import UserError
from pretzel.files.atomic import write_json, write_text
from pretzel.generation.sampling_record import work_record
from pretzel.media.sheet import save_png, sheet
from pretzel.training.module import PretzelModule

ON_SHEET = 256
"""Pictures on the contact sheet, at most: the first ones."""
COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class RequestedImage:
    """One line of ``prompts.json``; ``draw`` counts the draws of a prompt from 0."""

    file: str
    prompt: str
    seed: int
    draw: int


def requested_images(
    prompts: Sequence[str], num: int, seed: int, suffix: str = "png"
) -> list[RequestedImage]:
    """Return ``num`` images of every prompt, one prompt after the other, in files so named."""
    draws: defaultdict[str, Iterator[int]] = defaultdict(count)
    wanted = [prompt for prompt in prompts for _ in range(num)]
    return [
        RequestedImage(file=f"{i:05d}.{suffix}", prompt=prompt, seed=seed, draw=next(draws[prompt]))
        for i, prompt in enumerate(wanted)
    ]


def write_images(
    module: PretzelModule,
    images: Sequence[RequestedImage],
    folder: Path,
    *,
    batch_size: int,
    columns: int = COLUMNS,
    edited: Any = None,  # noqa: ANN401
) -> None:
    """Generate images and write them into a folder, which is made once the first ones are there.

    Beside the pictures it receives ``prompts.json``, ``grid.png`` of so many columns, and
    ``sampling.json``: how the module sampled, the seed, and the images and network evaluations per
    block of every batch. ``edited`` is a picture of which the prompts are instructions.

    Raises:
        UserError: If the folder cannot be written, or the device's memory does not suffice.
        KeyboardInterrupt: With how far it came; what is there is whole.
    """
    medium = module.pretzel.latent.medium
    on_sheet: list[Any] = []
    done: list[RequestedImage] = []
    batches: list[dict[str, Any]] = []
    bar = TextColumn("generating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*bar, console=Console(stderr=True)) as progress:
            task = progress.add_task("generating", total=len(images))
            for start in range(0, len(images), batch_size):
                batch = images[start : start + batch_size]
                for image, output in zip(batch, _generate(module, batch, edited), strict=True):
                    folder.mkdir(parents=True, exist_ok=True)
                    medium.save(output, folder / image.file)
                    done.append(image)
                    on_sheet += [output] if len(on_sheet) < ON_SHEET else []
                    progress.advance(task)
                _write_prompts(done, folder)  # with every batch: an interrupt loses no record
                record = dict(module.sampling_record)
                work = {name: record.pop(name) for name in work_record([])}
                batches.append({"images": len(batch), **work})
                record |= {"seed": batch[0].seed, "batches": batches}
                write_json(folder / "sampling.json", record)
        labels = [image.prompt for image in done[: len(on_sheet)]]
        save_png(sheet([*map(medium.picture, on_sheet)], labels, columns), folder / "grid.png")
    except KeyboardInterrupt as interrupt:
        if done:
            _write_prompts(done, folder)
        where = f"; they are in {folder}" if done else ""
        raise KeyboardInterrupt(
            f"interrupted after {len(done)} of {len(images)} images{where}"
        ) from interrupt
    except OSError as error:
        raise UserError(f"--out: {folder}: cannot be written ({error.strerror})") from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"--batch_size must be one that fits into the device's memory, got {batch_size}"
        ) from error


def _generate(
    module: PretzelModule,
    batch: Sequence[RequestedImage],
    edited: Any,  # noqa: ANN401
) -> list[Any]:
    prompts = [image.prompt for image in batch]
    keys = [f"{image.prompt}#{image.draw}" for image in batch]
    medium = module.pretzel.latent.medium
    given = None
    if edited is not None:
        pixels = medium.tensors([edited]).to(module.pretzel.device, module.pretzel.dtype)
        given = pixels.expand(len(batch), *pixels.shape[1:])
    with torch.inference_mode():
        return medium.outputs(module.generate(prompts, keys, seed=batch[0].seed, given=given))


def _write_prompts(done: Sequence[RequestedImage], folder: Path) -> None:
    write_readable(folder / "prompts.json", [asdict(image) for image in done])


def write_readable(path: Path, values: object) -> None:
    """Write a JSON file whole or not at all, in which all letters stand as they are."""
    write_text(path, f"{json.dumps(values, indent=1, ensure_ascii=False)}\n")
