"""Sheets of samples as PNG: each a card of pictures, and text in colours that tell its role."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from pretzel.errors import UserError
from pretzel.media.sheet import save_png

Style = Literal["context", "target", "dropped", "note"]

CARD = 240
"""Width of a card in pixels."""
_COLUMNS = 6  # of a sheet
_PAD = 8
_LINE = 16
_FONT_SIZE = 12
_MAX_LINES = 8  # of one run of text
_INK: dict[Style, str] = {
    "context": "#1c1e21",
    "target": "#11572f",
    "dropped": "#8a8f98",
    "note": "#6a7079",
}
_GROUND: dict[Style, str] = {"target": "#ddf3e4"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of text and what it is: read, supervised, dropped, or a note of ours."""

    text: str
    style: Style = "context"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One sample: pictures and runs of text in reading order."""

    parts: tuple[Run | UInt8[np.ndarray, "height width 3"], ...]


def plain(text: str) -> str:
    """Return a text in one line, without characters that steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def write_cards(cards: Sequence[Card], title: str, path: Path) -> None:
    """Write a sheet of cards as PNG, whole or not at all.

    Raises:
        UserError: If it cannot be written.
    """
    try:
        save_png(draw_cards(cards, _COLUMNS, title), path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be written ({reason})") from error


def draw_cards(cards: Sequence[Card], columns: int, title: str = "") -> Image.Image:
    """Return cards on one sheet under a title, each below the shortest column so far."""
    drawn = [_draw_card(card) for card in cards]
    columns = max(1, min(columns, len(drawn)))
    bottoms = [2 * _PAD + _LINE if title else _PAD] * columns
    places = []
    for card in drawn:
        column = bottoms.index(min(bottoms))
        places.append((_PAD + column * (CARD + _PAD), bottoms[column]))
        bottoms[column] += card.height + _PAD
    canvas = Image.new("RGB", (columns * (CARD + _PAD) + _PAD, max(bottoms)), "#eceae5")
    draw = ImageDraw.Draw(canvas)
    draw.text((_PAD, _PAD), plain(title), font=_font(), fill=_INK["context"])
    for card, place in zip(drawn, places, strict=True):
        canvas.paste(card, place)
    return canvas


def _draw_card(card: Card) -> Image.Image:
    blocks = [_block(part) for part in card.parts]
    height = sum(block.height + _PAD // 2 for block in blocks) + _PAD
    canvas = Image.new("RGB", (CARD, height), "white")
    top = _PAD // 2
    for block in blocks:
        canvas.paste(block, (_PAD, top))
        top += block.height + _PAD // 2
    return canvas


def _block(part: Run | UInt8[np.ndarray, "height width 3"]) -> Image.Image:
    width = CARD - 2 * _PAD
    if isinstance(part, Run):
        return _text_block(part, width)
    picture = Image.fromarray(part)
    factor = width / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    # small ones are enlarged by whole pixels, so that what the model gets is what is seen
    return picture.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)


def _text_block(run: Run, width: int) -> Image.Image:
    lines = _wrapped(plain(run.text), width)
    block = Image.new("RGB", (width, _LINE * len(lines)), _GROUND.get(run.style, "white"))
    draw = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        y = number * _LINE
        draw.text((1, y), line, font=_font(), fill=_INK[run.style])
        if run.style == "dropped":
            end = min(width, 1 + _font().getlength(line))
            draw.line((0, y + _LINE // 2, end, y + _LINE // 2), fill=_INK["dropped"])
    return block


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines, between words where one fits."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < _MAX_LINES:
        length = len(rest)
        while length > 1 and _font().getlength(rest[:length]) > width:
            # a long text is shortened by its share first
            share = width / _font().getlength(rest[:length])
            length = max(1, min(length - 1, int(length * share)))
        if length < len(rest) and " " in rest[1:length]:
            length = rest.rindex(" ", 1, length)
        lines.append(rest[:length].strip())
        rest = rest[length:].strip()
    if rest:
        lines[-1] = f"{lines[-1][:-2]}.."
    return lines or [""]


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    # matplotlib's: Latin, Greek, Cyrillic, the same on every machine
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, _FONT_SIZE)
