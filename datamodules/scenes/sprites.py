"""Sprites of the embedded Fluent Emoji."""

import io
import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import final

import numpy as np
from jaxtyping import Bool
from PIL import Image
from scipy import ndimage
from typing_extensions import override

from datamodules.reading.tar_shard import RawSample
from datamodules.scenes.look import Look, chosen
from datamodules.scenes.scene import RGB
from datamodules.sources.embedded import FluentEmoji
from datamodules.sources.source import Split

_FIRST = (
    "frog, whale, sunflower, strawberry, banana, penguin, carrot, basketball, rocket, crab, "
    "mushroom, pizza, airplane, alien, ambulance, anchor, automobile, avocado, backpack, balloon, "
    "bat, bear, bell, bicycle, bomb, boomerang, bus, butterfly, cactus, camera, candle, castle, "
    "cat, chair, cookie, cow, crocodile, croissant, crown, cucumber, cupcake, dolphin, door, "
    "doughnut, dragon, drum, duck, eagle, egg, eggplant, elephant, envelope, flamingo, fox, "
    "ghost, giraffe, gorilla, guitar, hamburger, hammer, hedgehog, helicopter, horse, house, "
    "kangaroo, key, kite, koala, ladder, laptop, lemon, lion, lizard, lobster, lollipop, magnet, "
    "melon, microscope, monkey, motorcycle, octopus, onion, owl, panda, parrot, peach, pencil, "
    "pig, pineapple, pretzel, rabbit, rainbow, robot, rose, sailboat, snail, snowman, spider, "
    "trophy, tulip"
)
FIRST = tuple(name.strip() for name in _FIRST.split(","))
"""A hundred that are told apart easily and have a plain plural; all others come behind them."""

_NAME = re.compile(r"[a-z]{2,}( [a-z]+)?")
_NO_NOUN = re.compile(
    r"\b(man|woman|person|men|women|people|button|symbol|no|pedestrians|arrow|\w+(ed|ing))\b"
)
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_WHITE = 244
"""Smallest channel from which a pixel may belong to the white ground of an emoji's picture."""


@final
class EmojiSprites(Look):
    """Emoji, upright, in their own colours.

    Args:
        kinds: Names, or so many: 12 for a CPU, 100 for a GPU; null for all whose name is one or two
            words for a thing.

    Raises:
        UserError: If there is no such emoji, or not so many.
    """

    least_pixels = 16
    colours: Mapping[str, RGB] = MappingProxyType({})

    def __init__(self, kinds: int | list[str] | None = 12) -> None:
        known = emoji_kinds()
        self.kinds = known if kinds is None else chosen("kinds", kinds, known)

    @override
    def sprite(
        self, kind: str, colour: str | None, pixels: int, angle: float = 0.0
    ) -> tuple[Image.Image, Image.Image]:
        return _resized(kind, pixels)


def emoji_kinds() -> tuple[str, ...]:
    """Return the names of all kinds, the hundred of :data:`FIRST` first."""
    names = (n for n in _files() if _NAME.fullmatch(n) and not _NO_NOUN.search(n))
    return (*FIRST, *sorted(set(names) - set(FIRST)))


@cache
def _files() -> dict[str, bytes]:
    """Return the image file of each emoji by its label; the first where a label comes twice."""
    source, files = FluentEmoji(), dict[str, bytes]()
    for shard in (shard for split in _SPLITS for shard in source.shards(split)):
        for raw in source.read(shard):
            assert isinstance(raw, RawSample)
            files.setdefault(json.loads(raw.members["json"])["caption"], raw.members["webp"])
    return files


@lru_cache(maxsize=4096)
def _resized(kind: str, pixels: int) -> tuple[Image.Image, Image.Image]:
    size = (pixels, pixels)
    # premultiplied: what is transparent lends no colour to the edge
    picture = cut_out(kind).convert("RGBa").resize(size, Image.Resampling.HAMMING).convert("RGBA")
    return picture.convert("RGB"), picture.getchannel("A")


@cache
def cut_out(kind: str) -> Image.Image:
    """Return an emoji without its white ground and margin: a square of RGBA."""
    with Image.open(io.BytesIO(_files()[kind]), formats=("WEBP",)) as file:
        pixels = np.asarray(file.convert("RGB"))
    mask = ~_ground(pixels.min(2) >= _WHITE)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    alpha = Image.fromarray(mask.astype(np.uint8) * 255)
    picture = Image.fromarray(pixels)
    picture.putalpha(alpha)
    picture = picture.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _ground(white: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Return those of the white pixels that are connected to the edge of the picture."""
    labels, _ = ndimage.label(np.pad(white, 1, constant_values=True))
    ground: Bool[np.ndarray, "height width"] = (labels == labels[0, 0])[1:-1, 1:-1]
    return ground
