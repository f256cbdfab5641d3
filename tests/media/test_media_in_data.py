"""Shards of videos and sounds become batches; what cannot serve is skipped by its reason."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from shard_files import write_tar

from datamodules import Captions, Shards, WebDatasetDataModule
from pretzel.errors import UserError
from pretzel.media import Sounds, Videos


def animation(levels, size=12, kind="WEBP", **options):
    """Return a file of grey frames."""
    first, *others = (Image.new("RGB", (size, size), (level,) * 3) for level in levels)
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=others, lossless=True, loop=0, **options)
    return buffer.getvalue()


def data_of(path, medium, **options):
    options = {"image_size": None, "medium": medium, "max_skipped": 1.0, **options}
    return WebDatasetDataModule(Shards(str(path), test=str(path)), Captions(0.0), batch_size=8,
                                steps_per_epoch=1, **options)  # fmt: skip


def test_frames_of_webp_and_gif_are_a_video_and_a_short_one_is_skipped(tmp_path):
    members = {
        "a.webp": animation([0, 255, 51]),
        "a.txt": b"a",
        "b.gif": animation([51, 0, 255, 102], size=9, kind="GIF"),
        "b.txt": b"b",
        "bb.webp": animation([0, 0, 255, 255], duration=100),  # two frames are written
        "bb.txt": b"bb",
        "c.webp": animation([0, 255]),
        "c.txt": b"c",
        "d.png": b"no picture",
        "d.txt": b"d",
    }
    data = data_of(write_tar(tmp_path / "v.tar", members), Videos(3, 8))
    (batch,) = data.test_dataloader()
    assert batch.images.shape == (3, 3, 3, 8, 8)
    expected = torch.tensor([[-1, 1, -0.6], [-0.6, -1, 1], [-1, -1, 1]])
    assert torch.allclose(batch.images.mean(dim=(2, 3, 4)), expected, atol=1e-6)
    assert [skipped.reason for skipped in data.skipped_samples] == ["too short", "damaged"]
    sample = next(data.evaluation_samples("test"))
    assert torch.equal(sample.image, batch.images[0])


def test_sounds_are_mixed_cut_and_filled_and_other_rates_are_skipped(tmp_path):
    soundfile = pytest.importorskip("soundfile")

    def encoded(samples, rate, kind):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.asarray(samples, dtype=np.int16), rate, format=kind)
        return buffer.getvalue()

    members = {
        "a.wav": encoded([[3000, 1000]] * 3 + [[-32768, -32768]] * 9, 100, "WAV"),
        "a.txt": b"a",
        "b.flac": encoded([32767, -16384], 100, "FLAC"),
        "b.txt": b"b",
        "c.wav": encoded([1, 2], 50, "WAV"),
        "c.txt": b"c",
        "d.wav": b"RIFF",
        "d.txt": b"d",
    }
    data = data_of(write_tar(tmp_path / "s.tar", members), Sounds(100, 5))
    (batch,) = data.test_dataloader()
    expected = torch.tensor([[2000.0] * 3 + [-32767.0] * 2, [32767.0, -16384, 0, 0, 0]]) / 32767
    assert torch.equal(batch.images, expected[:, None])
    assert [skipped.reason for skipped in data.skipped_samples] == ["sample rate", "damaged"]


def test_sounds_of_floats_are_read_as_sounds(tmp_path):
    soundfile = pytest.importorskip("soundfile")

    def encoded(samples, subtype):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.array(samples), 100, format="WAV", subtype=subtype)
        return buffer.getvalue()

    members = {
        "a.wav": encoded([0.5, -1.0, 1.5], "FLOAT"),
        "a.txt": b"a",
        "b.wav": encoded([-0.25, 0.0, 1.0], "DOUBLE"),
        "b.txt": b"b",
        "c.wav": encoded([0.5, np.nan, 0.5], "FLOAT"),
        "c.txt": b"c",
    }
    data = data_of(write_tar(tmp_path / "s.tar", members), Sounds(100, 3))
    (batch,) = data.test_dataloader()
    expected = torch.tensor([[0.5, -1.0, 1.0], [-0.25, 0.0, 1.0]])
    assert torch.allclose(batch.images[:, 0], expected, atol=1 / 32767)
    assert [skipped.reason for skipped in data.skipped_samples] == ["value range"]


def test_either_the_size_of_pictures_or_a_medium_is_given():
    for medium, options in (
        (Videos(3, 8), {"image_size": 8}),
        (None, {}),
        (Videos(3, 8), {"upscale": True}),
    ):
        with pytest.raises(UserError, match="medium"):
            data_of("v.tar", medium, **options)
