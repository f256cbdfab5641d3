"""Videos: a few square frames of RGB pixels."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import PIL
import torch
from jaxtyping import UInt8
from PIL import Image

from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.image_file import read_frames
from pretzel.files.medium_error import MediumError
from pretzel.media.base import Medium, check_item
from pretzel.media.image_input import crop_and_resize
from pretzel.media.integers import to_integers
from pretzel.media.rgb import CONVERSION_VERSION
from pretzel.typing import Float, Tensor

_SHOWN = 48
"""Least side of a frame in a picture of a video, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """Frames of one size in the order of time.

    Attributes:
        frames: RGB pictures.
        milliseconds: Time that each is shown.
    """

    frames: Sequence[Image.Image]
    milliseconds: int

    def encoded(self) -> bytes:
        """Return an animated WebP without loss, which repeats without end."""
        first, *others = self.frames
        buffer = io.BytesIO()
        first.save(
            buffer,
            format="WEBP",
            save_all=True,
            append_images=others,
            duration=self.milliseconds,
            loop=0,
            lossless=True,
        )
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Write an animated WebP, whole or not at all."""
        with whole_file(Path(path)) as partial:
            partial.write_bytes(self.encoded())

    def strip(self) -> Image.Image:
        """Return all frames side by side, small ones enlarged."""
        width, height = self.frames[0].size
        factor = max(1, -(-_SHOWN // min(width, height)))
        width, height = width * factor, height * factor
        strip = Image.new("RGB", ((width + 2) * len(self.frames) - 2, height), "white")
        for number, frame in enumerate(self.frames):
            enlarged = frame.resize((width, height), Image.Resampling.NEAREST)
            strip.paste(enlarged, ((width + 2) * number, 0))
        return strip


@final
class Videos(Medium):
    """Videos of square frames: items [frames, 3, size, size], written as animated WebP.

    Of animated WebP, GIF and PNG files the first moments are read, each cropped and resized as a
    picture; one that ends before cannot serve.

    Args:
        num_frames: Number of frames.
        size: Side of a frame in pixels.
        milliseconds: Time that each frame is shown.

    Raises:
        UserError: If a number is not positive.
    """

    suffixes = ("webp", "gif", "png")
    suffix = "webp"
    dtype = torch.uint8

    def __init__(self, num_frames: int, size: int, milliseconds: int = 100) -> None:
        if min(num_frames, size, milliseconds) < 1:
            raise UserError(
                "num_frames, size and milliseconds must be positive, got "
                f"{num_frames}, {size} and {milliseconds}"
            )
        self.num_frames = num_frames
        self.size = size
        self.milliseconds = milliseconds

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, colours, rows, columns."""
        return self.num_frames, 3, self.size, self.size

    @property
    def identity(self) -> str:
        """Number and size of the frames, and versions of what converts."""
        sizes = f"{self.num_frames}x{self.size}/{self.milliseconds}"
        return f"videos:{sizes}:{CONVERSION_VERSION}:{PIL.__version__}"

    def __str__(self) -> str:
        return f"{self.num_frames} frames of {self.size} px"

    def read(self, data: bytes) -> UInt8[np.ndarray, "t height width 3"]:
        """Return the frames at the first moments."""
        return self._frames(data)

    def tensor(self, given: Video | Tensor | str | Path) -> Float[Tensor, "t 3 height width"]:
        """Return a video, a tensor of :attr:`shape` in [-1, 1], or the video of a file."""
        if isinstance(given, Tensor):
            return check_item(self, given, "video")
        if isinstance(given, Video):
            pixels = np.stack([crop_and_resize(frame, self.size) for frame in given.frames])
        else:
            try:
                pixels = self._frames(given)
            except (OSError, MediumError) as error:
                raise UserError(f"{given}: cannot be read as a video ({error})") from error
        video = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
        return check_item(self, video, "video")

    def output(self, item: Float[Tensor, "t 3 height width"]) -> Video:
        """Return the frames as pictures of 8 bits."""
        pixels = to_integers(item).permute(0, 2, 3, 1).cpu().numpy()
        frames = tuple(Image.fromarray(frame) for frame in pixels)
        return Video(frames=frames, milliseconds=self.milliseconds)

    def picture(self, output: Video) -> Image.Image:
        """Return the frames side by side."""
        return output.strip()

    def save(self, output: Video, path: Path) -> None:
        """Write an animated WebP."""
        output.save(path)

    def _frames(self, file: bytes | str | Path) -> UInt8[np.ndarray, "t height width 3"]:
        frames = read_frames(file, self.num_frames, self.milliseconds)
        return np.stack([crop_and_resize(frame, self.size) for frame in frames])
