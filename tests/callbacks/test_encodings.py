"""Probes and reconstructions of modules whose quality is known."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor
from world import KnownData, make_trainer

from callbacks import FID, KID, LinearProbe, PooledPixels, Reconstructions
from callbacks.easy_vqa.judge import COLOURS, SHAPES
from pretzel.errors import UserError

GROUPS = {"colour": list(COLOURS), "shape": list(SHAPES)}


class Plain(LightningModule):
    """Does nothing."""

    def test_step(self, batch: object, batch_idx: int) -> None:
        pass


class Encoder(Plain):
    """Encodes what tells colours and shapes apart; decodes with a known error."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.error = error

    def encodings(self, images: Tensor) -> dict[str, Tensor]:
        # One colour is dark at a time: its darkest value says which. Shapes are told by area.
        low = images.flatten(2).amin(dim=-1)[:, None]
        inside = (images < 0.8).any(dim=1).flatten(1).double().mean(dim=1)[:, None, None]
        wide = (images < 0.8).any(dim=1).any(dim=1).double().sum(dim=1)[:, None, None]
        known = torch.cat([low, low**2, inside, wide], dim=-1)
        return {"latents": known, "nothing": torch.zeros(len(images), 1, 1)}

    def reconstruct(self, images: Tensor) -> Tensor:
        return images + self.error


def run(tmp_path: Path, module: LightningModule, *callbacks: object) -> dict[str, float]:
    trainer = make_trainer(tmp_path, list(callbacks))
    trainer.test(module, datamodule=KnownData(), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_what_an_encoding_knows_is_found_and_nothing_else(tmp_path: Path) -> None:
    probe = LinearProbe(GROUPS, ["latents", "nothing"], num_train=25, num_test=25)
    values = run(tmp_path, Encoder(), probe)
    names = {name for name in probe.metric_names() if name.startswith("test/")}
    assert values.keys() == names
    assert values["test/probe_latents_colour"] > 0.9
    assert values["test/probe_latents_shape"] > 0.9
    # the partial caption says a colour, but no shape
    assert values["test/probe_chance_colour"] == pytest.approx(4 / 25)
    assert values["test/probe_chance_shape"] == pytest.approx(1 / 3)
    assert values["test/probe_nothing_shape"] == pytest.approx(1 / 3)


def test_mistakes_of_probes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"groups\.colour must have two different words"):
        LinearProbe({"colour": ["red"]}, ["latents"])
    with pytest.raises(UserError, match=r"encodings must be of \['latents', 'nothing'\], got z"):
        run(tmp_path, Encoder(), LinearProbe(GROUPS, ["z"]))
    with pytest.raises(UserError, match="fewer than 20 captions have exactly one of the words"):
        run(tmp_path, Encoder(), LinearProbe({"animal": ["cat", "dog"]}, ["latents"]))
    with pytest.raises(UserError, match="LinearProbe needs a module with encodings"):
        run(tmp_path, Plain(), LinearProbe(GROUPS, ["latents"]))


def test_reconstructions_are_measured_and_shown(tmp_path: Path) -> None:
    fid = FID(PooledPixels(size=2))
    callback = Reconstructions(metrics=[fid], num_shown=6, columns=2, batch_size=7)
    values = run(tmp_path, Encoder(error=-0.02), callback)
    assert values.keys() <= callback.metric_names()
    assert values["test/reconstruction_n"] == 25
    assert callback.facts["test/reconstruction_psnr"] == {"n": 25}
    assert callback.facts[f"test/reconstruction_{fid.name}"] == {"n": 25, **fid.facts()[fid.name]}
    # An error of 0.02 of a range of 2, but where black stays black
    assert 39.9 < values["test/reconstruction_psnr"] < 41
    assert 0.98 < values["test/reconstruction_ssim"] < 1
    assert values[f"test/reconstruction_{fid.name}"] < 0.1
    with Image.open(next(tmp_path.rglob("reconstructions/*.png"))) as picture:
        assert picture.width > 3 * 32
    worse = run(tmp_path / "worse", Encoder(error=-0.5), Reconstructions(metrics=[fid]))
    assert worse["test/reconstruction_psnr"] < 14
    assert worse[f"test/reconstruction_{fid.name}"] > values[f"test/reconstruction_{fid.name}"]


def test_too_few_images_for_a_metric_cost_none_of_the_other_values(tmp_path: Path) -> None:
    callback = Reconstructions(metrics=[KID(PooledPixels(2)), FID(PooledPixels(2))])
    with pytest.warns(UserWarning, match="kid_pixels2 needs at least 100 generated and 100 real"):
        values = run(tmp_path, Encoder(error=-0.02), callback)
    assert values.keys() >= {"test/reconstruction_psnr", "test/reconstruction_fid_pixels2"}


def test_what_comes_back_as_nan_gets_no_value(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"at step 0 25 of 25 .* not finite .* cannot be measured"):
        run(tmp_path, Encoder(error=torch.nan), Reconstructions())


def test_reconstructions_need_a_module_that_decodes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Reconstructions needs a module with reconstruct"):
        run(tmp_path, Plain(), Reconstructions())
