"""Sheets of labelled pictures, and files of pictures that are whole or not there."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from pretzel.files.atomic import whole_file

CELL = 96
"""Least side of a picture on a sheet, in pixels; smaller images are enlarged."""
LABEL = 14
"""Height of the line under a picture, in pixels."""


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG that appears under its name only when it is complete."""
    with whole_file(path) as partial:
        picture.save(partial, format="PNG")


def sheet(images: Sequence[Image.Image], labels: Sequence[str], columns: int) -> Image.Image:
    """Return pictures of one size on one sheet, row by row, each above its label."""
    width, height = images[0].size
    factor = max(1, math.ceil(CELL / max(height, width)))
    cell = (width * factor, height * factor)
    step = (cell[0] + 4, cell[1] + LABEL + 4)
    rows = math.ceil(len(images) / columns)
    canvas = Image.new("RGB", (step[0] * min(columns, len(images)), step[1] * rows), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (picture, label) in enumerate(zip(images, labels, strict=True)):
        x, y = step[0] * (i % columns) + 2, step[1] * (i // columns) + 2
        # Enlarged by whole pixels, so that what the model made is what is seen.
        canvas.paste(picture.resize(cell, Image.Resampling.NEAREST), (x, y))
        draw.text((x, y + cell[1]), _fit(draw, label, cell[0]), fill="black")
    return canvas


def _fit(draw: ImageDraw.ImageDraw, label: str, width: int) -> str:
    """Return the label, shortened until it is at most ``width`` pixels wide."""
    whole = " ".join(label.split())
    if draw.textlength(whole) <= width:
        return whole
    for length in range(len(whole) - 1, 0, -1):
        short = f"{whole[:length]}.."
        if draw.textlength(short) <= width:
            return short
    return ""
