"""Pictures of any kind as 8-bit RGB: upright, in sRGB, without transparency.

The conversions are done in this order:

1. Grey values of more than 8 bits are scaled, never clipped: 16-bit ones from [0, 65535]; 32-bit
   integers and floats, whose range no file states, from the smallest of [0, 1] (floats alone),
   [0, 255] and [0, 65535] that holds all of them. Colours of 16 bits are read as their upper 8.
2. Palettes become colours. What has no colour profile is taken for sRGB; CMYK without one is
   converted by Pillow's plain formula.
3. An embedded ICC profile is converted to sRGB by LittleCMS (perceptual intent). One that changes
   no colour by more than one level in 255 is sRGB itself, and leaves the pixels as they are.
4. Transparent pixels are laid over a background.
5. The orientation that EXIF (or XMP) states is applied.
"""

import contextlib
import io
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageCms, ImageColor

from pretzel.errors import UserError
from pretzel.files.medium_error import MediumError

RGB = tuple[int, int, int]
WHITE: RGB = (255, 255, 255)

CONVERSION_VERSION = 1
"""Number of the rules above: features that were computed by others are computed anew."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_METADATA = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
"""Where Pillow finds an orientation."""

_SPACES = {"RGB": ("RGB",), "L": ("GRAY", "RGB"), "CMYK": ("CMYK",)}  # of profiles, by mode
_PLAIN = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # modes by the space of a profile


def rgb_colour(name: str) -> RGB:
    """Return a colour by its CSS name or ``#rrggbb``.

    Raises:
        UserError: If there is no such colour.
    """
    with contextlib.suppress(ValueError):
        red, green, blue, *alpha = ImageColor.getrgb(name)
        if not alpha:
            return red, green, blue
    raise UserError(f"background must be a CSS colour name or #rrggbb, not {name!r}")


def to_rgb(picture: Image.Image, background: RGB = WHITE) -> Image.Image:
    """Return a picture, which is left as it is, as upright RGB; itself where it is that already.

    Args:
        picture: Picture of any mode.
        background: Colour behind transparent pixels.

    Raises:
        MediumError: If it cannot be read (``damaged``), its colour profile is broken or belongs
            to another kind of picture (``colour profile``), or its grey values are in no known
            range (``value range``).
    """
    try:
        return _converted(picture, background)
    except MediumError:
        raise
    except Exception as error:  # on hostile files that a user has opened, Pillow raises anything
        raise MediumError("damaged", " ".join(str(error).split())) from error


def _converted(picture: Image.Image, background: RGB) -> Image.Image:
    picture.load()  # in some formats, what stands behind the pixels tells the orientation
    turn = _TURNS.get(_orientation(picture))
    profile = picture.info.get("icc_profile")
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode[0] in "IF":
        picture = _eight_bits(picture)
    if profile and picture.mode != "LAB":  # which Pillow converts itself
        picture = _in_srgb(picture, profile)
    if picture.has_transparency_data:
        backdrop = Image.new("RGBA", picture.size, background)
        backdrop.alpha_composite(picture.convert("RGBA"))
        picture = backdrop
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    if _METADATA.isdisjoint(picture.info):  # TIFFs are upright once they are loaded
        return 1
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF data, on which Pillow raises anything, is no data
        return 1


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Return a grey picture of more bits scaled to 8, with alpha where a value is transparent."""
    values = np.asarray(picture)
    if picture.mode.startswith("I;16"):
        limit = 65535
    else:
        limits = (1, 255, 65535) if picture.mode == "F" else (255, 65535)
        low, high = values.min(), values.max()
        if not 0 <= low <= high <= limits[-1]:  # NaN is in no range
            raise MediumError(
                "value range",
                f"grey values from {low:g} to {high:g} (mode {picture.mode}), known are those "
                "from 0 to 65535",
            )
        limit = next(limit for limit in limits if high <= limit)
    scaled = np.rint(values.astype(np.float32) * np.float32(255 / limit)).astype(np.uint8)
    grey = Image.fromarray(scaled)
    if isinstance(transparent := picture.info.get("transparency"), int):
        opaque = np.where(values == transparent, 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(opaque))
    return grey


def _in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture with its colours converted from their profile."""
    alpha = None
    if picture.has_transparency_data:
        alpha = picture.convert("RGBA").getchannel("A")
        picture = picture.convert("L" if picture.mode in ("L", "LA") else "RGB")
    elif picture.mode not in _SPACES:
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    try:
        mode, transform = _transform(profile, picture.mode)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise MediumError("colour profile", f"broken colour profile: {error}") from error
    if picture.mode != mode:
        picture = picture.convert(mode)
    if transform is not None:
        picture = transform.apply(picture)
    if alpha is not None:
        picture.putalpha(alpha)
    return picture


@lru_cache(maxsize=32)  # almost all pictures of a data set have one of a few
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode that a profile is of and its conversion to sRGB, None where that is none."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space not in _SPACES[mode]:
        raise ValueError(f"it is one of {space} colours, the picture is {mode}")
    mode = _PLAIN[space]
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    if mode == "CMYK":
        return mode, transform
    probe = _colours() if mode == "RGB" else _colours().convert("L")
    change = np.asarray(transform.apply(probe), int) - np.asarray(probe.convert("RGB"), int)
    return mode, transform if np.abs(change).max() > 1 else None


def _colours() -> Image.Image:
    """Return 4,096 colours that fill the cube evenly."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    cube: UInt8[np.ndarray, "r g b 3"] = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(cube.reshape(64, 64, 3))
