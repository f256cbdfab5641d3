"""Picture sheets of generated images at fixed prompts and fixed noise."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor
from typing_extensions import override

from callbacks.evaluation import Evaluation, check_counts
from callbacks.features import to_uint8
from callbacks.protocols import (
    EvaluationSample,
    evaluation_samples,
    generator_of,
    split_of_stage,
)
from callbacks.reporting import Stage, tensorboards
from pretzel.errors import UserError

CELL = 96
"""Least side of a picture on the sheet, in pixels; smaller images are enlarged."""
LABEL = 14
"""Height of the line under a picture, in pixels."""


class SampleGrid(Evaluation):
    """Draw the same prompts with the same noise at every evaluation.

    Writes ``<log_dir>/samples/step-00001000.png`` (``test-step-...`` when testing) and, where
    TensorBoard runs, the image ``<stage>/samples``. All ranks wait for rank zero, which draws.

    Args:
        prompts: What to draw; None takes the first different captions of the evaluation samples.
        num_images: Number of pictures; prompts are repeated where there are fewer.
        columns: Pictures in a row.
        every_n_validations: Draw at every n-th validation of a fit; tests always draw.

    Raises:
        UserError: If a number is below 1, no prompt can be had, or the module cannot sample.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        num_images: int = 24,
        columns: int = 8,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(type(self).__name__, num_images=num_images, columns=columns)
        self.prompts = prompts
        self.num_images = num_images
        self.columns = columns
        self._chosen: list[str] = []

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(prompts=self.prompts, num_images=self.num_images)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            return
        generator_of(pl_module, "SampleGrid")
        prompts = self.prompts
        if prompts is None:
            split = split_of_stage(stage)
            samples = evaluation_samples(trainer, split, "SampleGrid without prompts")
            prompts = _first_captions(samples, self.num_images)
        if not prompts:
            raise UserError("SampleGrid: prompts must not be empty, and no captions were found")
        self._chosen = [prompts[i % len(prompts)] for i in range(self.num_images)]

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        folder = trainer.log_dir  # asks all ranks
        if trainer.is_global_zero:
            images = generator_of(pl_module, "SampleGrid").sample(
                self._chosen, stream_key=("samples",)
            )
            picture = sheet(images, self._chosen, self.columns)
            for board in tensorboards(trainer):
                board.add_image(
                    f"{stage}/samples", np.asarray(picture), trainer.global_step, dataformats="HWC"
                )
            if folder is not None:
                prefix = "test-" if stage == "test" else ""
                path = Path(folder) / "samples" / f"{prefix}step-{trainer.global_step:08d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
        trainer.strategy.barrier("SampleGrid")


def _first_captions(samples: Iterable[EvaluationSample], number: int) -> list[str]:
    found: dict[str, None] = {}  # a set that keeps the order
    for sample in samples:
        if sample.caption:
            found[sample.caption] = None
        if len(found) == number:
            break
    return list(found)


def sheet(
    images: Float[Tensor, "n 3 height width"], labels: Sequence[str], columns: int
) -> Image.Image:
    """Return images in [-1, 1] on one sheet, row by row, each above its label."""
    pixels = to_uint8(images).permute(0, 2, 3, 1).cpu()
    height, width = pixels.shape[1:3]
    factor = max(1, math.ceil(CELL / max(height, width)))
    cell = (width * factor, height * factor)
    step = (cell[0] + 4, cell[1] + LABEL + 4)
    rows = math.ceil(len(images) / columns)
    picture = Image.new("RGB", (step[0] * min(columns, len(images)), step[1] * rows), "white")
    draw = ImageDraw.Draw(picture)
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        x, y = step[0] * (i % columns) + 2, step[1] * (i // columns) + 2
        # Enlarged by whole pixels, so that what the model made is what is seen.
        enlarged = Image.fromarray(image.numpy()).resize(cell, Image.Resampling.NEAREST)
        picture.paste(enlarged, (x, y))
        draw.text((x, y + cell[1]), _fit(draw, label, cell[0]), fill="black")
    return picture


def _fit(draw: ImageDraw.ImageDraw, label: str, width: int) -> str:
    """Return the label, shortened until it is at most ``width`` pixels wide."""
    shown = " ".join(label.split())
    short = shown
    while short and draw.textlength(short) > width:
        shown = shown[:-1]
        short = shown + ".."
        if not shown:
            return ""
    return short
