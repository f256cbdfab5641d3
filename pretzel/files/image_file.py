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
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be read as an image (no such file)") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error})") from error
