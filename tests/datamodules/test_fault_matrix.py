"""Each kind of fault: its reason, and that the samples before and behind it are read."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import AsWritten, Captions, Mixture, Questions, Shards, WebDatasetDataModule
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import REASONS, Skipped, Unusable

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def image(kind="PNG", size=(16, 16), **options):
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def bomb():
    """A picture of a few bytes that says that it is one of 10^10 pixels."""
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, "BMP")
    content = bytearray(buffer.getvalue())
    content[18:26] = (100_000).to_bytes(4, "little") * 2
    return bytes(content)


def as_json(**fields):
    return json.dumps(fields).encode()


PNG, JPEG = image(), image("JPEG", (64, 64))
TEXT = {"txt": b"a text"}
EITHER = Mixture([Questions(), AsWritten()], [1.0, 1.0])
MATRIX = [
    # row of the page, members of the sample, reason, part of the detail, recipe
    ("HTML named `.jpg`", {"jpg": b"<!DOCTYPE html><p>404"} | TEXT, "damaged", "x.jpg", Captions()),
    ("a picture cut off", {"jpg": JPEG[: len(JPEG) // 2]} | TEXT, "damaged", "x.jpg", Captions()),
    (
        "a download that failed and left `key.json` alone",
        {"json": as_json(caption=None)},
        "no image",
        "only json",
        Captions(),
    ),
    ("a decompression bomb", {"png": bomb()} | TEXT, "too large", "10000000000 pixels", Captions()),
    (
        "a picture smaller than `image_size`",
        {"png": image(size=(50, 15))} | TEXT,
        "too small",
        "50x15",
        Captions(),
    ),
    (
        "no caption, one that is null or empty",
        {"png": PNG, "txt": b" ", "json": as_json(caption=None)},
        "no caption",
        "recipe Captions",
        Captions(),
    ),
    (
        "a caption that is neither a text nor a list of texts",
        {"png": PNG, "json": as_json(caption={"en": "a"})},
        "unknown form",
        "'caption' of x.json",
        Captions(),
    ),
    (
        "text that is not UTF-8",
        {"png": PNG, "txt": b"caf\xe9"},
        "damaged",
        "x.txt is not UTF-8",
        Captions(),
    ),
    (
        "half a character (`\\ud83d`) in JSON",
        {"png": PNG, "json": b'{"caption": "a \\ud83d"}'},
        "damaged",
        "is not Unicode",
        Captions(),
    ),
    (
        "JSON that is cut off",
        {"png": PNG, "json": b'{"caption": "a'},
        "damaged",
        "x.json",
        Captions(),
    ),
    (
        "JSON nested to exhaust the stack",
        {"png": PNG, "json": b'{"caption":' + b"[" * 10**5} | TEXT,
        "nested too deep",
        "x.json",
        Captions(),
    ),
    (
        "JSON that is no object",
        {"png": PNG, "json": b'["a"]'} | TEXT,
        "unknown form",
        "['a']",
        Captions(),
    ),
    (
        "a text of more than `max_characters`",
        {"png": PNG, "txt": b"a" * 10**6},
        "text too long",
        "1000000 characters",
        Captions(),
    ),
    (
        "no questions, where the recipe needs some",
        {"png": PNG} | TEXT,
        "no questions",
        "recipe Questions",
        Questions(),
    ),
    (
        "questions of none of the known forms",
        {"png": PNG, "json": as_json(questions=["is it?", "yes"])} | TEXT,
        "unknown form",
        "known are",
        Captions(),
    ),
    (
        "segments that are not as below",
        {"0.png": PNG, "json": as_json(segments=[{"text": 3}])},
        "unknown form",
        "segment 0",
        AsWritten(),
    ),
    (
        "segments that name a picture that is not there",
        {"json": as_json(segments=[{"image": "0.png"}])},
        "no image",
        "x.0.png",
        AsWritten(),
    ),
    (
        "an interleaved document, where the recipe takes captioned pictures",
        {"0.png": PNG, "json": as_json(segments=[{"image": "0.png"}])},
        "other kind",
        "AsWritten",
        Captions(),
    ),
    (
        "a captioned picture, where the recipe takes documents",
        {"png": PNG} | TEXT,
        "other kind",
        "no segments",
        AsWritten(),
    ),
    (
        "a sample that no recipe of a `Mixture` accepts",
        {"png": PNG} | TEXT,
        "no recipe",
        "needs questions, recipe AsWritten",
        EITHER,
    ),
    (
        "a key with dots (`a.b.jpg` is member `b.jpg` of sample `a`)",
        {"1.png": PNG, "1.txt": b"t"},
        "key with dots",
        "x.1.png",
        Captions(),
    ),
    (
        "two members of one name",
        [("png", PNG), ("png", PNG), ("txt", b"t")],
        "name twice",
        "x.png",
        Captions(),
    ),
    (
        "two pictures of one name, such as a `.jpg` with a `.png` for its mask",
        {"png": PNG, "jpg": JPEG} | TEXT,
        "name twice",
        "x.png, x.jpg",
        Captions(),
    ),
]


def neighbour(recipe):
    """A sample that a recipe accepts."""
    if isinstance(recipe, AsWritten):
        return {"0.png": PNG, "json": as_json(segments=[{"image": "0.png"}])}
    return {"png": PNG, "json": as_json(caption="a", questions=[["is it?", "no"]])}


def write(path, samples):
    with tarfile.open(path, "w") as archive:
        for key, members in samples:
            for suffix, content in members.items() if isinstance(members, dict) else members:
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return str(path)


def looked_at(source, recipe):
    """Return the samples that a recipe accepts, and those that are skipped."""
    decode = source.decoder(PictureDecoder(image_size=16))
    usable, skipped = [], []
    for shard in source.shards("train"):
        for raw in source.read(shard):
            sample = decode(raw) if isinstance(raw, RawSample) else raw
            if not isinstance(sample, Skipped):
                try:
                    recipe.check(sample)
                except Unusable as fault:
                    sample = fault.skipped(raw.shard, raw.key)
            (skipped if isinstance(sample, Skipped) else usable).append(sample)
    return usable, skipped


@pytest.mark.parametrize(
    ("members", "reason", "detail", "recipe"),
    [row[1:] for row in MATRIX],
    ids=[row[0] for row in MATRIX],
)
def test_a_fault_is_named_and_its_neighbours_are_read(tmp_path, members, reason, detail, recipe):
    good = neighbour(recipe)
    shard = write(tmp_path / "a.tar", [("a", good), ("x", members), ("z", good)])
    usable, (fault,) = looked_at(Shards(shard), recipe)
    assert [sample.key for sample in usable] == ["a", "z"]
    assert (fault.shard, fault.key, fault.reason) == (shard, "x", reason)
    assert reason in REASONS
    assert detail in fault.detail
    assert "\n" not in str(fault)
    assert len(str(fault)) < 600
    assert " object at 0x" not in fault.detail


def broken_shards(folder):
    """Three shards that are broken as a whole, by row of the page, with their reasons."""
    good = neighbour(Captions())
    write(folder / "cut.tar", [("c", good), ("d", good)])
    whole = (folder / "cut.tar").read_bytes()
    with tarfile.open(folder / "cut.tar") as archive:
        end = archive.getmember("d.json").offset
    (folder / "cut.tar").write_bytes(whole[:end])
    (folder / "other.tar").write_bytes(b"<html>no such bucket</html>" * 99)
    write(folder / "empty.tar", [])
    return {
        "a shard that is cut off": ("cut.tar", "damaged"),
        "a file that is no archive": ("other.tar", "damaged"),
        "a shard without samples": ("empty.tar", "empty shard"),
    }


def test_broken_shards_are_named_and_the_others_are_read(tmp_path):
    faults = broken_shards(tmp_path)
    last = write(tmp_path / "last.tar", [("z", neighbour(Captions()))])
    shards = [str(tmp_path / name) for name, _ in faults.values()]
    usable, skipped = looked_at(Shards([*shards, last]), Captions())
    assert [sample.key for sample in usable] == ["c", "z"]
    expected = [(str(tmp_path / name), "*", reason) for name, reason in faults.values()]
    assert [(fault.shard, fault.key, fault.reason) for fault in skipped] == expected


def test_the_page_has_a_row_for_each_kind_of_fault(tmp_path):
    lines = PAGE.read_text().split("| Fault | Counted as |\n")[1].splitlines()[1:]
    rows = [line.strip("| ").split(" | ") for line in lines[: lines.index("")]]
    kinds = {row[0]: row[2] for row in MATRIX}
    kinds |= {name: reason for name, (_, reason) in broken_shards(tmp_path).items()}
    assert {name: reason.strip("`") for name, reason in rows} == kinds


class Counting(LightningModule):
    """Trains one number, and keeps the keys that it sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.keys = set()

    def training_step(self, batch, batch_idx):
        self.keys |= {document.key for document in batch.documents}
        return self.weight * batch.images.mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, source):
    """Train over data with faults, and return the module and the folder of the run."""
    data = WebDatasetDataModule(source, Captions(), 16, 4, 30, shuffle_buffer=8, max_skipped=0.9)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=TensorBoardLogger(folder, name=None, version="run"),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    module = Counting()
    with pytest.warns(UserWarning, match=r"\d+ samples were skipped .* all of them: .*jsonl"):
        trainer.fit(module, datamodule=data)
    return module, folder / "run"


def test_a_run_over_all_faults_ends_and_tells_each_once(tmp_path):
    good = neighbour(Captions())
    samples = [("first", good)]
    kinds = {}
    for place, (_, members, reason, _, recipe) in enumerate(MATRIX):
        if isinstance(recipe, Captions):
            kinds[f"x{place}"] = reason
            samples += [(f"x{place}", members), (f"good{place}", good)]
    shard = write(tmp_path / "a.tar", samples)
    faults = broken_shards(tmp_path)
    shards = [shard, *(str(tmp_path / name) for name, _ in faults.values())]
    source = Shards(shards, val=shards)
    module, run = fit(tmp_path, source)
    assert module.keys == {key for key, _ in samples if key not in kinds} | {"c"}
    lines = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    by_place = {(line["shard"], line["key"]): line["reason"] for line in lines}
    expected = {(shard, key): reason for key, reason in kinds.items()}
    expected |= {(str(tmp_path / name), "*"): reason for name, reason in faults.values()}
    assert by_place == expected
    assert len(lines) == len(expected)
    events = EventAccumulator(str(run)).Reload()
    for reason in set(expected.values()):
        name = f"data/skipped_{reason.replace(' ', '_')}"
        assert events.Scalars(name)[-1].value == list(expected.values()).count(reason)
    fit(tmp_path, source)  # goes on in the same folder, as a resumed run does
    assert len((run / "skipped.jsonl").read_text().splitlines()) == len(lines)
