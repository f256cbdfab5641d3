"""Image files that users name."""

from pathlib import Path

from PIL import Image

from pretzel.errors import UserError


def open_image(path: str | Path) -> Image.Image:
    """Read an image file whole.

    Raises:
        UserError: If it cannot be read as an image.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"{path}: cannot be read as an image ({reason})") from error
