"""Linear latents are whitened principal components, and the best that so few channels can do."""

from pathlib import Path

import pytest
import torch

from pretzel.errors import UserError
from pretzel.latent import LinearLatents
from pretzel.latent.linear import save_linear
from pretzel.latent.pixels import patchify
from pretzel.training import LinearLatentsFit
from pretzel.typing import Tensor


def fitted(path: Path, images: Tensor, channels: int) -> LinearLatents:
    patches = patchify(images.double(), 4).flatten(0, 1)
    save_linear(
        path,
        mean=patches.mean(0),
        covariance=torch.cov(patches.T, correction=0),
        channels=channels,
        image_size=16,
        patch_size=4,
    )
    return LinearLatents(str(path), noise=0.2)


def test_latents_are_white_and_ordered_by_what_they_explain(images: Tensor, tmp_path: Path):
    latent = fitted(tmp_path / "linear.safetensors", images, 8)
    x = latent.encode(images)
    assert x.shape == (64, latent.num_positions, latent.channels) == (64, 16, 8)
    torch.testing.assert_close(
        torch.cov(x.flatten(0, 1).T, correction=0), torch.eye(8), rtol=0, atol=1e-3
    )
    errors = []
    for kept in (1, 4, 8):
        part = x * (torch.arange(8) < kept)
        errors.append(float((latent.decode(part) - images).square().mean()))
    assert errors == sorted(errors, reverse=True)
    # What is lost is the variance of the components that were left out
    patches = patchify(images.double(), 4).flatten(0, 1)
    variances = torch.linalg.eigvalsh(torch.cov(patches.T, correction=0))
    assert errors[-1] == pytest.approx(float(variances[:-8].sum() / 48), rel=1e-3)


def test_equal_statistics_make_equal_files(images: Tensor, tmp_path: Path):
    first = fitted(tmp_path / "a.safetensors", images, 4)
    second = fitted(tmp_path / "b.safetensors", images, 4)
    assert first.identity == second.identity
    assert first.identity != fitted(tmp_path / "c.safetensors", images, 5).identity


def test_without_weights_only_the_sizes_are_known(images: Tensor, tmp_path: Path):
    real = fitted(tmp_path / "linear.safetensors", images, 8)
    bare = LinearLatents(None, noise=0.2, shape=(16, 4, 8))
    assert {name: t.shape for name, t in bare.state_dict().items()} == {
        name: t.shape for name, t in real.state_dict().items()
    }
    assert (bare.grid, bare.channels, bare.image_size) == (real.grid, real.channels, 16)
    with pytest.raises(UserError, match=r"shape must be that of .*, got \(16, 4, 9\)"):
        LinearLatents(str(tmp_path / "linear.safetensors"), noise=0.2, shape=(16, 4, 9))
    with pytest.raises(UserError, match="weights must name a file of linear latents where no"):
        LinearLatents(None, noise=0.2)


def test_more_channels_than_images_have_are_refused(tmp_path: Path):
    flat = torch.rand(64, 3, 1, 1).expand(-1, -1, 16, 16)
    with pytest.raises(UserError, match=r"channels must be at most 3, .* got 6"):
        fitted(tmp_path / "linear.safetensors", flat, 6)
    with pytest.raises(UserError, match="images must differ"):
        fitted(tmp_path / "linear.safetensors", torch.ones(64, 3, 16, 16), 6)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_refused(weights: Path):
    with pytest.raises(UserError, match="weights must name a file"):
        LinearLatents(str(weights), noise=0.2)


def test_an_export_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch):
    stage = LinearLatentsFit(16, 4, 8)
    monkeypatch.setattr(LinearLatentsFit, "export_path", tmp_path / "linear.safetensors")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, "export", full)
    with pytest.raises(
        UserError, match=r"export_to: .* cannot be written \(No space left on device"
    ):
        stage.on_fit_end()
