"""Small img2dataset-like shards to read, break and resume from."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from noise_images import noise_png
from noise_source import Noise
from PIL import Image
from shard_files import write_tar

from datamodules.tools.pack import pack

WriteShard = Callable[[str, Mapping[str, bytes]], str]


def _encoded(color=(255, 0, 0), size=(16, 16), suffix="png"):
    buffer = io.BytesIO()
    format_name = {"jpg": "JPEG", "webp": "WEBP"}.get(suffix, suffix.upper())
    Image.new("RGB", size, color).save(buffer, format_name)
    return buffer.getvalue()


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Encode an image of one colour: ``encoded(color, size, suffix)``."""
    return _encoded


@pytest.fixture
def write_shard(tmp_path: Path) -> WriteShard:
    """Write members, in order, to a tar file and return its path."""

    def write(name: str, members: Mapping[str, bytes]) -> str:
        return str(write_tar(tmp_path / name, members))

    return write


@pytest.fixture
def shard_pattern(write_shard: WriteShard, tmp_path: Path) -> str:
    """Six shards of ten captioned 16x16 images with questions; keys are shard_sample."""
    rng = np.random.default_rng(0)
    for shard in range(6):
        members = {}
        for number in range(10):
            key = f"{shard:02d}_{number:03d}"
            members[f"{key}.png"] = noise_png(rng)
            fields = {"caption": f"image {key}", "questions": [[f"{q}?", str(q)] for q in range(3)]}
            members[f"{key}.json"] = json.dumps(fields).encode()
        write_shard(f"{shard:05d}.tar", members)
    return str(tmp_path / "{00000..00005}.tar")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A folder with four packed shards of ten pictures each, and one of five for validation."""
    pack(Noise(), tmp_path / "p", name="noise", shard_size=10, license_text="CC0")
    return tmp_path / "p"
