"""Latents and text states computed once: the same training, without pictures and encoder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from tiny import tiny_module

from datamodules import Captions, HorizontalFlip, Pad, RandomCrop, Shards, WebDatasetDataModule
from datamodules.decoding import picture
from datamodules.decoding.picture import PictureDecoder
from datamodules.features import latent_files
from datamodules.tools.embed import embed
from pretzel.__main__ import main
from pretzel.errors import UserError
from pretzel.latent import Pixels
from pretzel.training.text_states import TextStates

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")

BASE = str(Path(__file__).parents[2] / "ablations" / "base" / "easy_vqa.yaml")
ENCODER = Pixels(image_size=8, patch_size=4, noise=0.05)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pretzel" / "latents"


def data_of(pattern, **options):
    arguments = {"image_size": 8, "batch_size": 6, "steps_per_epoch": 4, "shuffle_buffer": 8}
    return WebDatasetDataModule(Shards(pattern), Captions(0.0), **{**arguments, **options})


def module_of(**options):
    torch.manual_seed(0)
    return tiny_module(**options)


def trained(data, folder, **options):
    """Return the weights after an epoch."""
    module = module_of(**options)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, data, weights_only=True)
    return module.state_dict()


def decoded_pictures(monkeypatch):
    """Return a list that grows by one for each picture that is decoded."""
    seen = []
    decode = PictureDecoder.__call__

    def counting(self, *args):
        seen.append(len(args))
        return decode(self, *args)

    monkeypatch.setattr(PictureDecoder, "__call__", counting)
    return seen


def check_close(weights, expected, tolerance):
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=tolerance, msg=name)


def test_runs_read_what_was_embedded(shard_pattern, tmp_path, cache, monkeypatch, caplog):
    expected = trained(data_of(shard_pattern), tmp_path)
    summary = embed(module_of(), data_of(shard_pattern), num_workers=2)
    assert (summary.num_shards, summary.num_present, summary.num_images) == (6, 0, 60)
    assert summary.folders == (str(next(cache.iterdir())),)
    assert embed(module_of(), data_of(shard_pattern)).num_images == 0

    seen = decoded_pictures(monkeypatch)
    check_close(trained(data_of(shard_pattern), tmp_path), expected, 1e-6)
    assert "latents of 6 of 6 training shards are read (float32)" in caplog.text
    checked = len(seen)  # of the first samples, before training
    batch = next(iter(data_of(shard_pattern).train_dataloader()))
    assert (batch.latents, batch.num_images) == (None, 6)  # nobody has asked for any

    # where one is missing its pictures are encoded, among the latents of the others
    files = sorted(cache.glob("*/*.safetensors"))
    files[0].unlink()
    seen.clear()
    check_close(trained(data_of(shard_pattern), tmp_path), expected, 1e-6)
    assert "latents of 5 of 6" in caplog.text
    assert checked < len(seen) < checked + 24
    assert embed(module_of(), data_of(shard_pattern)).num_images == 10
    assert sorted(cache.glob("*/*.safetensors")) == files


def test_workers_read_them_too(shard_pattern):
    embed(module_of(), data_of(shard_pattern), dtype="float16")
    plain, latents = data_of(shard_pattern), data_of(shard_pattern, num_workers=2)
    assert latents.read_latents(ENCODER).endswith("(float16)")
    for one, other in zip(plain.train_dataloader(), latents.train_dataloader(), strict=True):
        assert [d.key for d in one.documents] == [d.key for d in other.documents]
        assert len(other.images) == 0
        assert other.has_latents.all()
        clean = ENCODER.encode(one.images)
        torch.testing.assert_close(other.latents.float(), clean, rtol=1e-3, atol=1e-3)
    latents.teardown("fit")


def test_processes_share_the_work(shard_pattern, monkeypatch):
    write, others = latent_files.LatentFiles.write, []

    def slow(self, *args):
        if not others:
            others.append(None)
            others.append(embed(module_of(), data_of(shard_pattern)))
        write(self, *args)

    monkeypatch.setattr(latent_files.LatentFiles, "write", slow)
    own = embed(module_of(), data_of(shard_pattern))
    assert (own.num_images, others[1].num_images) == (10, 60)


def test_evaluation_reads_pictures_of_the_same_shards(shard_pattern):
    embed(module_of(), data_of(shard_pattern))
    data = WebDatasetDataModule(
        Shards(shard_pattern, val=shard_pattern), Captions(), 8, 6, 1, num_val_samples=6
    )
    assert data.read_latents(ENCODER)
    assert next(iter(data.train_dataloader())).latents is not None
    (batch,) = data.val_dataloader()
    assert (batch.latents, batch.images.shape) == (None, (6, 3, 8, 8))
    (sample,) = data.evaluation_samples("train", 1)
    assert torch.equal(sample.image, batch.images[0])


def test_a_damaged_file_is_computed_anew(shard_pattern, cache):
    plain, data = data_of(shard_pattern), data_of(shard_pattern)
    embed(module_of(), data_of(shard_pattern))
    for number, path in enumerate(sorted(cache.glob("*/*.safetensors"))):
        content = bytearray(path.read_bytes())
        if number % 2:
            content[-40] ^= 1
        path.write_bytes(content if number % 2 else content[:300])
    assert "6 of 6" in data.read_latents(ENCODER)
    with pytest.warns(UserWarning, match=r"latents in .* are left unread: .* computes it anew"):
        batches = list(data.train_dataloader())
    for one, other in zip(plain.train_dataloader(), batches, strict=True):
        assert other.latents is None
        assert torch.equal(one.images, other.images)
    assert embed(module_of(), data_of(shard_pattern)).num_images == 60
    data.read_latents(ENCODER)
    assert next(iter(data.train_dataloader())).has_latents.all()


def test_a_full_disk_leaves_nothing_half_written(shard_pattern, cache, monkeypatch):
    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(latent_files, "save_tensors", full)
    with pytest.raises(UserError, match=r"cannot be written to .*No space left"):
        embed(module_of(), data_of(shard_pattern))
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert data_of(shard_pattern).read_latents(ENCODER) == ""


@pytest.mark.parametrize("option", [{"crop": RandomCrop()}, {"flip": HorizontalFlip()}])
def test_random_pictures_have_none(shard_pattern, option):
    embed(module_of(), data_of(shard_pattern))
    assert data_of(shard_pattern, **option).read_latents(ENCODER) == ""
    with pytest.raises(UserError, match=r"data.crop or data.flip is random"):
        embed(module_of(), data_of(shard_pattern, **option))


def test_latents_are_found_by_content(shard_pattern, tmp_path, write_shard, encoded, monkeypatch):
    embed(module_of(), data_of(shard_pattern))
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path, moved, ignore=lambda _, names: {"cache", "elsewhere"} & set(names))
    assert "6 of 6" in data_of(f"{moved}/0000[0-5].tar").read_latents(ENCODER)
    others = [
        (data_of(shard_pattern, crop=Pad()), ENCODER),
        (data_of(shard_pattern, background="black"), ENCODER),
        (data_of(shard_pattern, upscale=True), ENCODER),
        (data_of(shard_pattern, image_size=16), Pixels(16, 4, 0.05)),
        (data_of(shard_pattern), Pixels(image_size=8, patch_size=2, noise=0.05)),
    ]
    assert [data.read_latents(latent) for data, latent in others] == [""] * 5
    # noise is added to what is kept
    assert "6 of 6" in data_of(shard_pattern).read_latents(Pixels(8, 4, noise=0.3))
    write_shard("00000.tar", {"x.png": encoded(), "x.txt": b"t"})
    assert "5 of 6" in data_of(shard_pattern).read_latents(ENCODER)
    monkeypatch.setattr(picture, "own_code", lambda crop: f"other code of {crop.__name__}")
    assert data_of(shard_pattern).read_latents(ENCODER) == ""


def test_names_that_two_pictures_have_stand_for_none(tmp_path):
    files = latent_files.LatentFiles.of(tmp_path, ("a.tar",), ("content",))
    rows = list(np.arange(24.0, dtype="f4").reshape(4, 2, 3).transpose(0, 2, 1))  # not contiguous
    files.write("a.tar", ["x.png", "y.png", "x.png", "z.png"], rows, {})
    assert files.get("a.tar", "x.png") is files.get("b.tar", "y.png") is None
    np.testing.assert_array_equal(files.get("a.tar", "z.png"), rows[3])
    assert files.missing == ()


def test_text_states_are_filled(shard_pattern, tmp_path):
    options = {"text_weight": 0.0, "trains": ["shallow", "deep"]}
    expected = trained(data_of(shard_pattern), tmp_path, **options)
    states = TextStates(tmp_path / "states")
    summary = embed(module_of(text_states=states, **options), data_of(shard_pattern))
    assert summary.num_texts == 60
    again = TextStates(tmp_path / "states")
    weights = trained(data_of(shard_pattern), tmp_path, text_states=again, **options)
    assert (again.num_computed, again.num_read) == (0, 24)
    check_close(weights, expected, 1e-5)


def test_captions_are_filled_as_they_are_read(shard_pattern, tmp_path, monkeypatch):
    drawn, texts = [], Shards.texts
    monkeypatch.setattr(
        Shards, "texts", lambda *args: map(lambda s: drawn.append(s) or s, texts(*args))
    )
    filled = []
    monkeypatch.setattr(TextStates, "fill", lambda *args: filled.append(len(drawn)))
    states = TextStates(tmp_path / "states")
    module = module_of(text_states=states, text_weight=0.0, trains=["shallow", "deep"])
    embed(module, data_of(shard_pattern))
    assert filled == [32, 60]


def test_the_command_says_what_it_has_done(shard_pattern, tmp_path, cache, capsys):
    changes = tmp_path / "changes.yaml"
    source = f"{{class_path: datamodules.Shards, init_args: {{train: '{shard_pattern}'}}}}"
    changes.write_text(f"data: {{init_args: {{source: {source}, upscale: true}}}}")
    command = ["data", "embed", "-c", BASE, "-c", str(changes), "--workers", "0"]
    assert main([*command, "--dtype", "float16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "60 pictures encoded; 6 shards have latents, 0 had them before"
    assert lines[1] == f"latents: {next(cache.iterdir())}"
    (tmp_path / "none.yaml").write_text("model: {class_path: pretzel.training.VLMPretraining}")
    assert main(["data", "embed", "-c", str(tmp_path / "none.yaml")]) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_type_is_named(shard_pattern):
    with pytest.raises(UserError, match="dtype must be one of float32, float16, not 'int8'"):
        embed(module_of(), data_of(shard_pattern), dtype="int8")
