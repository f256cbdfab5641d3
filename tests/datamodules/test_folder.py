"""A user's own pictures, as they lie in a folder or stand in a table; nothing is packed."""

import csv
import json
import os
import shutil

import pytest

from datamodules import Captions, Folder, Questions, WebDatasetDataModule
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from pretzel.errors import UserError
from pretzel.runs.selection import why_test_data

PATHS = [f"{'sub/' * (n % 3 == 0)}{n}.{'JPG' if n % 2 else 'png'}" for n in range(40)]


@pytest.fixture
def photos(tmp_path, encoded):
    """``photos/0.png`` to ``photos/sub/39.jpg``."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for path in PATHS:
        (folder / path).write_bytes(encoded(suffix=path[-3:].lower()))
    return folder


def raws(source, split="train"):
    return [raw for shard in source.shards(split) for raw in source.read(shard)]


def refusal(source, split="train"):
    with pytest.raises(UserError) as error:
        source.shards(split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pictures_with_texts_beside_them(photos):
    for number, path in enumerate(PATHS):
        beside = (photos / path).with_suffix(".json" if number % 4 else ".txt")
        caption = f"picture {number}"
        beside.write_text(json.dumps({"alt": caption}) if number % 4 else caption)
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "a.text.alone.txt").write_text("no picture")
    source = Folder(str(photos), caption_field="alt")
    samples = list(source.samples("train", 16))
    assert {s.key: s.caption for s in samples} == {
        path.rpartition(".")[0]: f"picture {number}" for number, path in enumerate(PATHS)
    }
    assert [s.key for s in samples] == sorted(s.key for s in samples)
    assert source.num_samples("train") == 40
    assert [len(list(source.read(shard))) for shard in source.shards("train")] == [32, 8]
    assert source.shards("val") == ()


def test_files_of_one_name_are_none_of_them(photos, encoded):
    (photos / "2.PNG").write_bytes(encoded((0, 255, 0)))
    (photos / "4.jpg").write_bytes(encoded((0, 255, 0)))  # beside 4.png, whose mask it may be
    source = Folder(str(photos))
    decode = source.decoder(PictureDecoder(image_size=16))
    samples = [raw if isinstance(raw, Skipped) else decode(raw) for raw in raws(source)]
    skipped = {s.key: (s.reason, s.detail) for s in samples if isinstance(s, Skipped)}
    assert skipped == {
        "2": ("name twice", "two files are named 2.png"),
        "4": ("name twice", "more than one picture: 4.png, 4.jpg"),
    }


def test_names_of_files_that_are_not_unicode(photos, encoded):
    path = os.path.join(os.fsencode(photos), b"caf\xe9.png")
    with open(path, "wb") as file:
        file.write(encoded())
    source = Folder(str(photos), val=0.5)
    found = [raw for split in ("train", "val") for raw in raws(source, split)]
    assert len(found) == 41
    assert "caf\\udce9" in {raw.key for raw in found if isinstance(raw, RawSample)}
    assert len(source.identities(source.shards("train"))) == 1


def test_a_folder_that_cannot_be_read_is_refused(photos, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert "sub' cannot be read: Permission denied" in refusal(Folder(str(photos)))


def write_table(path, rows):
    match path.suffix:
        case ".csv" | ".tsv":
            with path.open("w", newline="", encoding="utf-8") as file:
                names = list(dict.fromkeys(name for row in rows for name in row))
                writer = csv.DictWriter(file, names, delimiter="\t" if ".tsv" in path.name else ",")
                writer.writeheader()
                for row in rows:
                    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
                    writer.writerow(texts)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows))
        case ".parquet":
            pyarrow = pytest.importorskip("pyarrow", reason="pyarrow reads Parquet")
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_tables_of_every_kind(photos, suffix):
    rows = [
        {"img": path, "alt": f'a "picture", {path}', "asked": [[f"what is {path}?", "it"]]}
        for path in PATHS
    ]
    table = write_table(photos / f"table.{suffix}", rows)
    source = Folder(table, path_field="img", caption_field="alt", questions_field="asked")
    samples = list(source.samples("train", 16))
    assert [(s.caption, s.questions) for s in samples] == [
        (row["alt"], ((row["asked"][0][0], "it"),)) for row in rows
    ]


def test_rows_of_one_picture_are_one_sample(photos, tmp_path):
    rows = [
        {"path": path, "caption": f"{path} {n}", "q": f"{n}?", "a": str(n)}
        for n in range(3)
        for path in ("1.JPG", "2.png")
    ]
    table = write_table(tmp_path / "t.csv", rows)
    source = Folder(table, images=str(photos), question_field="q", answer_field="a")
    assert [s.questions[2] for s in source.texts("train")] == [("2?", "2")] * 2
    first, second = source.samples("train", 16)
    assert (first.key, first.caption, second.key) == ("1", "1.JPG 0", "2")
    assert second.questions == (("0?", "0"), ("1?", "1"), ("2?", "2"))


def test_llava_and_a_long_caption(photos, tmp_path):
    turns = said("<image>\nwhat?", "a square", "why?", "so")
    table = write_table(tmp_path / "llava.json", [{"image": "1.JPG", "conversations": turns}])
    source = Folder(table, images=str(photos))
    (raw,) = raws(source)
    assert json.loads(raw.members["json"])["conversations"] == turns
    sample = source.decoder(PictureDecoder(image_size=16))(raw)
    assert sample.questions == (("what?", "a square"), ("why?", "so"))
    long = write_table(tmp_path / "long.csv", [{"path": "1.JPG", "caption": "x" * 200_000}])
    (raw,) = raws(Folder(long, images=str(photos)))
    assert Folder(long).decoder(PictureDecoder(image_size=16))(raw).reason == "text too long"


def said(*turns):
    """A conversation of LLaVA's."""
    return [
        {"from": who, "value": what}
        for who, what in zip(("human", "gpt") * len(turns), turns, strict=False)
    ]


def test_several_conversations_about_one_picture(photos, tmp_path):
    rows = [
        {"image": "1.JPG", "conversations": said(f"<image>\n{number}?", "so")} for number in "ab"
    ]
    source = Folder(write_table(tmp_path / "llava.json", rows), images=str(photos))
    (sample,) = source.samples("train", 16)
    assert sample.questions == (("a?", "so"), ("b?", "so"))


def test_rows_without_a_picture_are_counted(photos, tmp_path):
    text_alone = {"id": 3, "conversations": said("why?", "so")}
    rows = [text_alone, {"image": "1.JPG"}, {"image": ["1.JPG", "2.png"]}, {"image": None}]
    rows += [{"image": "a\0.png"}, {"image": "a\ud83d.png"}, {"image": "a" * 999 + ".png"}]
    source = Folder(write_table(tmp_path / "t.jsonl", rows), images=str(photos))
    keys = [raw.key for raw in raws(source) if isinstance(raw, RawSample)]
    faults = [raw for raw in raws(source) if isinstance(raw, Skipped)]
    assert keys == ["1"]
    assert [fault.reason for fault in faults] == ["no image"] * 5 + ["damaged"]
    assert [fault.key for fault in faults][:3] == ["row 1", "row 3: ['1.JPG', '2.png']", "row 4"]
    assert len(source.identities(source.shards("train"))) == 1
    assert all(fault.detail.encode() for fault in faults)


def test_a_table_names_pictures_whatever_their_names_end_in(photos, tmp_path, encoded):
    (photos / "dir.v1").mkdir()
    paths = ["dir.v1/abc", "dir.v1/def", "x.jfif", "notes.txt"]
    for path in paths:
        (photos / path).write_bytes(b"a caption" if path == "notes.txt" else encoded())
    table = write_table(tmp_path / "t.csv", [{"path": path} for path in paths])
    source = Folder(table, images=str(photos))
    assert [sample.key for sample in source.samples("train", 16)] == paths[:3]
    decoder = source.decoder(PictureDecoder(image_size=16))
    assert decoder(raws(source)[3]).reason == "damaged"


def test_lists_in_texts_are_read_in_text_tables_alone(photos, tmp_path):
    rows = [{"path": "1.JPG", "question": "[1, 2]?", "answer": "[1, 2]"}]
    answers = {}
    for suffix in ("csv", "json"):
        source = Folder(write_table(tmp_path / f"t.{suffix}", rows), images=str(photos))
        (answers[suffix],) = next(source.texts("train")).answers
    assert answers == {"csv": ("1", "2"), "json": ("[1, 2]",)}


def test_rows_of_one_picture_may_say_what_rows_alone_may(photos, tmp_path):
    rows = [{"path": "1.JPG", "caption": {"en": "a"}}] * 2
    source = Folder(write_table(tmp_path / "t.json", rows), images=str(photos))
    decoder = source.decoder(PictureDecoder(image_size=16))
    assert [decoder(raw).reason for raw in raws(source)] == ["unknown form"]
    asked = [{"path": "1.JPG", "question": f"{a}?", "answer": a} for a in ("a", "", "c")]
    source = Folder(write_table(tmp_path / "t.csv", asked), images=str(photos))
    assert next(source.texts("train")).questions == (("a?", "a"), ("c?", "c"))


def test_vqa_files(tmp_path, encoded):
    for number in (9, 25):
        (tmp_path / f"COCO_train2014_{number:012d}.jpg").write_bytes(encoded(suffix="jpg"))
    questions, annotations = [], []
    for number, (image, asked) in enumerate([(9, "red?"), (25, "blue?"), (9, "why?"), (7, "no?")]):
        questions.append({"question_id": number, "image_id": image, "question": asked})
        answers = [{"answer": "yes" if i < 7 else "no", "answer_id": i} for i in range(10)]
        annotations.append(
            {"question_id": number, "answers": answers, "multiple_choice_answer": "yes"}
            | {"answer_type": "yes/no", "question_type": "why" if asked == "why?" else ""}
        )
    files = []
    for name, entries in (("questions", questions), ("annotations", annotations)):
        (tmp_path / f"{name}.json").write_text(json.dumps({name: entries}))
        files.append(str(tmp_path / f"{name}.json"))
    source = Folder(files)
    first, second, missing = raws(source)
    sample = source.decoder(PictureDecoder(image_size=16))(first)
    assert sample.key == "COCO_train2014_000000000009"
    assert sample.questions == (("red?", "yes"), ("why?", "yes"))
    assert sample.answers[0] == ("yes",) * 7 + ("no",) * 3
    assert sample.answer_types == ("yes/no", "yes/no")
    assert sample.question_types == ("", "why")
    assert (second.key[-2:], missing.reason) == ("25", "no image")
    data = WebDatasetDataModule(
        source, Questions(), 16, batch_size=2, steps_per_epoch=2, max_skipped=0.5
    )
    assert len(list(data.train_dataloader())) == 2
    (tmp_path / "other_25.png").write_bytes(encoded())
    with pytest.raises(
        UserError, match=r"images '.*' must be a folder in which image_id names one"
    ):
        Folder(files).shards("train")


def test_shares_are_held_out_by_the_key_alone(photos):
    source = Folder(str(photos), val=0.25, test=0.2)
    keys = {split: {raw.key for raw in raws(source, split)} for split in ("train", "val", "test")}
    assert sum(map(len, keys.values())) == len(set.union(*keys.values())) == 40
    assert all(4 <= len(keys[split]) <= 16 for split in ("val", "test"))
    for path in list(photos.rglob("1*.*")):
        path.unlink()
    again = Folder(str(photos), val=0.25, test=0.2)
    assert all({raw.key for raw in raws(again, split)} <= keys[split] for split in keys)
    with pytest.raises(UserError, match=r"^val gets none of the \d+ samples by val=0\.001$"):
        Folder(str(photos), val=0.001).shards("val")
    with pytest.raises(UserError, match=r"val must be between 0 and 1, got 1\.5"):
        Folder("x", val=1.5)


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png", "sub/../../secret.png"])
def test_paths_that_lead_out_of_the_folder_are_refused(photos, tmp_path, path):
    table = write_table(photos / "t.csv", [{"path": "1.JPG"}, {"path": path}])
    assert f"row 2 of '{table}': path '{path}' leads out" in refusal(Folder(table))


def test_links_out_of_the_folder_are_not_followed(photos, tmp_path, encoded):
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("s.png", "s.txt"):
        (secret / name).write_bytes(encoded())
    (photos / "1.txt").symlink_to(secret / "s.txt")
    (photos / "link.png").symlink_to(secret / "s.png")
    (photos / "inside.png").symlink_to(photos / "2.png")
    (photos / "entered").symlink_to(secret)
    (photos / "loop.png").symlink_to(photos / "loop.png")
    os.mkfifo(photos / "pipe.png")
    by_key = {raw.key: raw for raw in raws(Folder(str(photos)))}
    assert len(by_key) == 44
    skipped = {key for key, raw in by_key.items() if isinstance(raw, Skipped)}
    assert skipped == {"1", "link", "loop", "pipe"}
    assert isinstance(by_key["inside"], RawSample)
    assert "leads out" in by_key["link"].detail


def test_mistakes_are_one_sentence(photos, tmp_path, encoded):
    table = write_table(tmp_path / "t.csv", [{"pth": "1.JPG", "caption": "x"}])
    assert "no column 'path' or 'image'" in refusal(Folder(table))
    assert "did you mean 'pth'?" in refusal(Folder(table))
    assert "'none' is no folder" in refusal(Folder("none"))
    assert "is no folder" in refusal(Folder("s3://bucket/photos"))
    assert "train must name one folder" in refusal(Folder([str(photos), str(photos / "sub")]))
    assert "holds the folder of val" in refusal(Folder(str(photos), val=str(photos / "sub")))
    (tmp_path / "broken.jsonl").write_text('{"path": "a.png"}\n{')
    assert "broken.jsonl" in refusal(Folder(str(tmp_path / "broken.jsonl")))
    (tmp_path / "twice.csv").write_text("path,caption,caption\n1.JPG,a,b\n")
    assert "two columns have one name" in refusal(Folder(str(tmp_path / "twice.csv")))
    (tmp_path / "quote.csv").write_text('path,caption\n1.JPG,a\n2.png,"a" b\n')
    assert "line 3: ',' expected" in refusal(Folder(str(tmp_path / "quote.csv")))
    (tmp_path / "t.xlsx").touch()
    assert "must be one of .csv" in refusal(Folder(str(tmp_path / "t.xlsx")))
    (tmp_path / "empty").mkdir()
    assert "holds no picture" in refusal(Folder(str(tmp_path / "empty")))


def test_values_without_a_form_in_json_are_refused(tmp_path):
    table = write_table(tmp_path / "t.parquet", [{"path": "1.JPG", "caption": b"a"}])
    assert "1.JPG: no form in JSON (Object of type bytes" in refusal(Folder(table))


def test_identity_is_that_of_the_content(photos, tmp_path, encoded):
    def manifest(folder, **splits):
        data = WebDatasetDataModule(
            Folder(str(folder), **splits), Captions(), 16, batch_size=1, steps_per_epoch=1
        )
        return data, data.manifest()

    _, first = manifest(photos)
    moved = shutil.copytree(photos, tmp_path / "moved")
    assert manifest(moved)[1] == first
    (moved / "1.JPG").write_bytes(encoded((0, 0, 1), suffix="jpg"))
    assert manifest(moved)[1] != first
    both, _ = manifest(photos, val=str(moved), test=str(moved))
    assert "reads moved#00000 for val and for test" in why_test_data(both)
