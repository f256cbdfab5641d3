"""Several sources as one: by weight, each with its recipe, counted and passed over on its own."""

import json
from collections import Counter
from itertools import chain

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import nn, optim

from datamodules import (
    AsWritten,
    Blend,
    Captions,
    FluentEmoji,
    Folder,
    Part,
    Questions,
    Shards,
    WebDatasetDataModule,
)
from pretzel.errors import NothingToMeasure, UserError


@pytest.fixture
def parts(shard_pattern, tmp_path, encoded):
    """Sixty captioned samples with questions in shards, twelve captioned pictures in a folder."""
    (tmp_path / "photos").mkdir()
    for number in range(12):
        (tmp_path / "photos" / f"p{number}.png").write_bytes(encoded())
        (tmp_path / "photos" / f"p{number}.json").write_text(json.dumps({"alt": f"p {number}"}))
    val = str(tmp_path / "00000.tar")
    return [
        Part(
            name="shards",
            source=Shards(shard_pattern.replace("{00000", "{00001"), val=val),
            recipe=Questions(),
            weight=3.0,
        ),
        Part(
            name="photos",
            source=Folder(str(tmp_path / "photos"), caption_field="alt", val=0.3),
            recipe=Captions(drop=0.0),
            weight=1.0,
        ),
    ]


def data(source, recipe=None, **changes):
    arguments = {"image_size": 16, "batch_size": 4, "steps_per_epoch": 50, "shuffle_buffer": 8}
    return WebDatasetDataModule(source, recipe, **(arguments | changes))


def part_of(document):
    return "photos" if document.key.startswith("p") else "shards"


def test_documents_come_by_weight_and_by_the_recipe_of_their_part(parts):
    documents = [d for batch in data(Blend(parts)).train_dataloader() for d in batch.documents]
    counts = Counter(map(part_of, documents))
    assert abs(counts["photos"] / 200 - 1 / 4) < 4 * (0.25 * 0.75 / 200) ** 0.5
    # The image first in Questions, the caption first in Captions.
    orders = {(part_of(d), type(d.segments[0]).__name__) for d in documents}
    assert orders == {("shards", "Image"), ("photos", "Text")}
    with_workers = data(Blend(parts), num_workers=2, steps_per_epoch=5).train_dataloader()
    keys = [document.key for batch in with_workers for document in batch.documents]
    assert keys == [document.key for document in documents[:20]]


def test_validation_reads_the_parts_one_after_the_other(parts):
    source = Blend(parts)
    counts = [part.source.num_samples("val") for part in parts]
    assert source.num_samples("val") is None
    module = data(source, eval_batch_size=3)
    module.setup("fit")
    batches = [[part_of(d) for d in batch.documents] for batch in module.val_dataloader()]
    assert all(len(set(batch)) == 1 for batch in batches)
    assert [batch.part for batch in module.val_dataloader()] == [batch[0] for batch in batches]
    assert Counter(chain.from_iterable(batches)) == {"shards": 10, "photos": counts[1]}
    limited = data(source, num_val_samples=3).val_dataloader()
    assert Counter(part_of(d) for batch in limited for d in batch.documents) == {
        "shards": 2,
        "photos": 1,
    }
    assert len(list(data(source, num_val_samples=1).val_dataloader())) == 1
    captions = [sample.caption for sample in module.evaluation_samples("val")]
    assert captions[0] == "image 00_000"
    assert captions[-1].startswith("p ")
    assert len(list(module.evaluation_texts("train"))) == 50 + parts[1].source.num_samples("train")
    examples = Counter(map(part_of, module.example_documents(8)))
    assert examples == {"shards": 6, "photos": 2}  # by weight
    # The parts are read through the blend as well, each by its own decoder.
    assert [sample.caption for sample in source.samples("val", 16)] == captions


def test_parts_of_documents_alone_have_no_images_to_measure(parts, write_shard, encoded):
    story = {"x.0.png": encoded(), "x.json": b'{"segments": [{"text": "a"}, {"image": "0.png"}]}'}
    shard = write_shard("story.tar", story)
    stories, others = (
        Part(name=name, source=Shards(shard, val=shard), recipe=AsWritten(), weight=1.0)
        for name in ("stories", "others")
    )
    with pytest.raises(NothingToMeasure, match="val shards hold interleaved documents alone"):
        list(data(Blend([stories, others])).evaluation_samples("val"))
    with_images = data(Blend([stories, *parts])).evaluation_samples("val", 3)
    assert [sample.caption[0] for sample in with_images] == ["i", "p"]  # one of each part


def test_shards_are_told_apart_and_identities_are_those_of_the_parts(parts):
    manifest = data(Blend(parts)).manifest()
    alone = data(parts[0].source, Questions()).manifest()
    assert manifest["train/0"] == f"shards {alone['train/0']}"
    assert Blend(parts).shards("val")[0].startswith("shards::")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a/b"}, "name 'a/b' must be letters"),
        ({"weight": 0.0}, "weight of photos must be positive, not 0.0"),
        ({"name": "shards"}, "names must differ"),
    ],
)
def test_mistakes_are_one_sentence(parts, changes, said):
    fields = {"name": "photos", "source": FluentEmoji(), "recipe": Captions(), "weight": 1.0}
    with pytest.raises(UserError, match=said):
        Blend([parts[0], Part(**(fields | changes))])


def test_a_recipe_belongs_to_the_parts_or_to_the_datamodule(parts):
    with pytest.raises(UserError, match="recipe must be null where the source is a Blend"):
        data(Blend(parts), Captions())
    with pytest.raises(UserError, match="recipe must be given where the source is FluentEmoji"):
        data(FluentEmoji())
    with pytest.raises(UserError, match="must not be a Blend itself"):
        Blend([Part(name="a", source=Blend(parts), recipe=Captions(), weight=1.0)])


class Recorder(Logger):
    """Keeps what is logged."""

    name, version = "recorder", 0

    def __init__(self):
        super().__init__()
        self.logged = {}

    def log_metrics(self, metrics, step=None):
        for name, value in metrics.items():
            self.logged.setdefault(name, []).append(value)

    def log_hyperparams(self, *args, **kwargs):
        pass


class Nothing(LightningModule):
    """Trains one number."""

    def __init__(self):
        super().__init__()
        self.number = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.number.weight.sum()

    def validation_step(self, batch, batch_idx):
        """Only read."""

    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=0.0)


def fit(source, folder, max_steps, **changes):
    recorder = Recorder()
    trainer = Trainer(
        max_steps=max_steps,
        logger=recorder,
        log_every_n_steps=5,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(Nothing(), datamodule=data(source, steps_per_epoch=10), **changes)
    trainer.save_checkpoint(folder / "last.ckpt")
    return recorder.logged


def test_epochs_and_counts_of_the_parts_are_logged_and_go_on_after_a_resume(parts, tmp_path):
    source = Blend(parts)
    whole = fit(source, tmp_path, 30)
    shards, photos = (whole[f"data/{name}/documents"] for name in ("shards", "photos"))
    assert [a + b for a, b in zip(shards, photos, strict=True)] == [20 * n for n in range(1, 7)]
    num_photos = source.parts(None)[1].source.num_samples("train")
    assert whole["data/photos/epoch"][-1] == pytest.approx(photos[-1] / num_photos, abs=1)
    assert whole["data/shards/epoch"][-1] == pytest.approx(shards[-1] / 50, abs=1)
    fit(source, tmp_path, 10)
    resumed = fit(source, tmp_path, 30, ckpt_path=tmp_path / "last.ckpt")
    for name in ("shards/documents", "photos/documents", "photos/epoch", "shards/epoch"):
        assert resumed[f"data/{name}"] == whole[f"data/{name}"][2:]
