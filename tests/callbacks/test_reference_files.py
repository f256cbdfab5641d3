"""Real images are looked at once for each data and extractor; torch-fidelity reads what is kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from typing_extensions import override
from world import KnownData, Recaller, make_trainer

from callbacks import FID, KID, Generation, ModuleFeatures, PooledPixels, Reconstructions
from callbacks.feature_metrics.reference_files import reference_file
from datamodules import Captions, EasyVQA, WebDatasetDataModule


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pretzel" / "references"


class KnownImages(KnownData):
    """Known data whose images have a name, and are counted."""

    identity = "first"
    num_read = 0

    def images_identity(self, split: str) -> str:
        return f"{self.identity} {split}"

    @override
    def evaluation_samples(self, split: str = "test", limit: int | None = None):
        for sample in super().evaluation_samples(split, limit):
            self.num_read += 1
            yield sample


def measured(folder: Path, data: KnownImages, extractor: PooledPixels) -> dict[str, float]:
    metrics = [FID(extractor), KID(extractor, subsets=2, subset_size=9)]
    generation = Generation(metrics, num_images=10, prompts=["a red circle", "a blue circle"])
    trainer = make_trainer(folder, [generation])
    trainer.test(Recaller(), datamodule=data, verbose=False)
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    del values["test/seconds_per_image"]
    return values


def test_a_second_run_reads_what_the_first_has_kept(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = KnownImages()
    first = measured(tmp_path, data, PooledPixels(2))
    all_images = data.num_read
    assert {path.name.split("-", 1)[1] for path in cache.iterdir()} == {
        "pixels-stat-fid-all.pt",
        "pixels-features-all.pt",
    }
    assert measured(tmp_path, data, PooledPixels(2)) == first
    assert data.num_read == all_images + 1  # whose size is looked at
    assert first["test/fid_pixels2_n_real"] == 25

    for change in ({"identity": "other"}, {"size": 3}):
        count = len(list(cache.iterdir()))
        data = KnownImages()
        data.identity = change.get("identity", "first")
        measured(tmp_path, data, PooledPixels(change.get("size", 2)))
        assert (data.num_read, len(list(cache.iterdir()))) == (all_images, count + 2)

    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-200])
    data = KnownImages()
    with caplog.at_level("INFO"):
        assert measured(tmp_path, data, PooledPixels(2)) == first
    assert data.num_read == all_images
    assert "features of real images are computed anew" in caplog.text


class Copier(Recaller):
    """Gives back what it gets, a little darker."""

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        return images - 0.1


def test_reconstructions_share_what_is_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reconstructed(num_images: int | None) -> float:
        callback = Reconstructions(num_images, metrics=[FID(PooledPixels(2))])
        trainer = make_trainer(tmp_path, [callback])
        trainer.test(Copier(), datamodule=KnownImages(), verbose=False)
        return float(trainer.callback_metrics["test/reconstruction_fid_pixels2"])

    measured(tmp_path, KnownImages(), PooledPixels(2))
    fewer = reconstructed(9)
    assert len(list(cache.iterdir())) == 3  # the first nine images are others than all
    monkeypatch.setattr(FID, "update_real", None)  # is not called again
    assert reconstructed(9) == fewer != reconstructed(None)
    assert len(list(cache.iterdir())) == 3


def test_a_module_of_the_users_is_not_kept() -> None:
    module = torch.nn.Flatten()
    assert reference_file("images", ModuleFeatures(module, "flat"), "stat-fid") is None


def test_torch_fidelity_reads_the_statistics() -> None:
    extractor = PooledPixels(2)
    generator = torch.Generator().manual_seed(0)
    real, generated = torch.randn(2, 40, 3, 2, 2, generator=generator)
    metric = FID(extractor)
    metric.prepare(torch.device("cpu"))
    metric.update_real(real)
    metric.save_real("images")
    path = reference_file("images", extractor, "stat-fid")
    kept = torch.load(path, weights_only=False)  # as torch-fidelity does
    other = fid_features_to_statistics(generated.flatten(1))
    expected = fid_statistics_to_metric(other, kept, verbose=False)
    metric.update(generated, [""] * 40)
    value = metric.compute()["fid_pixels2"]
    assert value == pytest.approx(expected["frechet_inception_distance"], rel=1e-5)
    assert isinstance(kept["mu"], np.ndarray)

    again = FID(extractor)
    assert not again.load_real("other images")
    assert again.load_real("images")
    again.update(generated, [""] * 40)
    assert again.compute() == metric.compute()
    again.update_real(real)  # the file's own are not written to
    assert again.compute()["fid_pixels2_n_real"] == 80


def test_images_are_the_same_where_all_that_they_depend_on_is() -> None:
    def identity(split: str = "test", **changes: object) -> str:
        settings = {"image_size": 32, "batch_size": 4, "steps_per_epoch": 1} | changes
        return WebDatasetDataModule(EasyVQA(), Captions(), **settings).images_identity(split)

    assert identity() == identity(batch_size=8, seed=5)
    others = [identity("val"), identity(image_size=48), identity(max_characters=9)]
    assert len({identity(), *others}) == 4
