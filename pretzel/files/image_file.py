"""Image files: which formats are read, and how large they may be."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pretzel.errors import UserError
from pretzel.files.medium_error import MediumError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
"""Formats that are decoded, by Pillow's names. The list is closed: each decoder is one more that
hostile bytes can attack."""

ANIMATED_FORMATS = ("WEBP", "GIF", "PNG")
"""Those that are decoded as videos."""

IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "gif", "bmp")
"""Ends of the names of image files; what is in them decides how they are read."""

MAX_FRAMES = 10_000
"""Frames of a video that are looked at, at most."""

MAX_PIXELS = 89_478_485
"""Pixels beyond which a file is refused as a decompression bomb: Pillow warns from here on."""


def read_picture(file: bytes | str | Path) -> Image.Image:
    """Read an image file whole, by its path or its bytes.

    Of an animated picture the first frame is read, of a file of many pages the first.

    Raises:
        MediumError: If the bytes are no picture (``damaged``), or one of more than
            :data:`MAX_PIXELS` (``too large``).
        OSError: If there is no such file, or it cannot be opened.
    """
    with _opened(file, FORMATS) as picture:
        picture.load()
        return picture


def read_frames(file: bytes | str | Path, count: int, milliseconds: int) -> list[Image.Image]:
    """Read what an animated picture shows at the first moments, by its path or its bytes.

    Encoders write equal frames as one that is shown for longer: it is by time that frames count.

    Args:
        file: Path or bytes.
        count: Number of moments.
        milliseconds: Time between them; that of frames whose own is not stated.

    Raises:
        MediumError: If the bytes are none (``damaged``), it ends before the last moment (``too
            short``), or its frames are of more than :data:`MAX_PIXELS` together (``too large``).
        OSError: If there is no such file, or it cannot be opened.
    """
    frames: list[Image.Image] = []
    with _opened(file, ANIMATED_FORMATS, count) as picture:
        end = 0
        for number in range(MAX_FRAMES):
            try:
                picture.seek(number)
            except EOFError as error:
                found = f"{len(frames)} frames of {milliseconds} ms, fewer than {count}"
                raise MediumError("too short", found) from error
            picture.load()
            end += int(picture.info.get("duration", 0)) or milliseconds
            while len(frames) * milliseconds < end and len(frames) < count:
                frames.append(picture.copy())
            if len(frames) == count:
                return frames
    raise MediumError("too large", f"more than {MAX_FRAMES} frames in {count * milliseconds} ms")


@contextlib.contextmanager
def _opened(
    file: bytes | str | Path, formats: tuple[str, ...], frames: int = 1
) -> Iterator[Image.Image]:
    """Open an image file; whatever the block makes of damaged bytes becomes a MediumError."""
    try:
        opened = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(opened, formats=formats) as picture:
            if picture.width * picture.height * frames > MAX_PIXELS:
                size = f"{picture.width}x{picture.height}"
                size = size if frames == 1 else f"{frames} frames of {size}"
                raise MediumError("too large", f"{size} pixels, more than {MAX_PIXELS} in all")
            yield picture
    except (MediumError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except UnidentifiedImageError as error:  # whose message names an object in memory
        raise MediumError("damaged", f"it is none of {', '.join(formats)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediumError("too large", _in_one_line(error)) from error
    except Exception as error:  # on hostile bytes the decoders raise exceptions of every type
        raise MediumError("damaged", _in_one_line(error)) from error


def open_image(path: str | Path) -> Image.Image:
    """Read an image file that a user names, as :func:`read_picture` does.

    Raises:
        UserError: If it cannot be read as an image.
    """
    try:
        return read_picture(path)
    except (OSError, MediumError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"{path}: cannot be read as an image ({reason})") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
