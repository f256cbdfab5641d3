"""Image files: which formats are read, and how large they may be."""

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pretzel.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
"""Formats that are decoded, by Pillow's names. The list is closed: each decoder is one more that
hostile bytes can attack."""

IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "gif", "bmp")
"""Ends of the names of image files; what is in them decides how they are read."""

MAX_PIXELS = 89_478_485
"""Pixels beyond which a file is refused as a decompression bomb: Pillow warns from here on."""


class PictureError(ValueError):
    """Raised where a picture cannot be used.

    Args:
        reason: In two words, the same for all such pictures.
        detail: The same of this one.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_picture(file: bytes | str | Path) -> Image.Image:
    """Read an image file whole, by its path or its bytes.

    Of an animated picture the first frame is read, of a file of many pages the first.

    Raises:
        PictureError: If the bytes are no picture (``damaged``), or one of more than
            :data:`MAX_PIXELS` (``too large``).
        OSError: If there is no such file, or it cannot be opened.
    """
    try:
        opened = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(opened, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise PictureError(
                    "too large",
                    f"{picture.width}x{picture.height} pixels, more than {MAX_PIXELS} in all",
                )
            picture.load()
            return picture
    except (PictureError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except UnidentifiedImageError as error:  # whose message names an object in memory
        raise PictureError("damaged", f"it is none of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("too large", _in_one_line(error)) from error
    except Exception as error:  # on hostile bytes the decoders raise exceptions of every type
        raise PictureError("damaged", _in_one_line(error)) from error


def open_image(path: str | Path) -> Image.Image:
    """Read an image file that a user names, as :func:`read_picture` does.

    Raises:
        UserError: If it cannot be read as an image.
    """
    try:
        return read_picture(path)
    except (OSError, PictureError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"{path}: cannot be read as an image ({reason})") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
