"""`pretzel data pack` of what people have: a folder, tables, VQAv2's files, LLaVA's file."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from datamodules import Shards
from pretzel.__main__ import main


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of twelve real pictures in two folders, captions beside them."""
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        path = Path("photos", f"day{number % 2}", f"COCO_{number:06d}.{('jpg', 'png')[number % 2]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + number, 24), (number * 20, 90, 30)).save(path)
        path.with_suffix(".txt").write_text(f"photo {number}")
    return tmp_path


def packed(*args):
    assert main(["data", "pack", *args, "--out", "out", "--workers", "0"]) == 0
    splits = {}
    for split in ("train", "val", "test"):
        paths = sorted(str(path) for path in Path("out").glob(f"{split}-*.tar"))
        splits[split] = list(Shards(paths).samples("train", 16)) if paths else []
    return splits


def test_a_folder_with_shares_held_out(photos, capsys):
    (photos / "photos" / "broken.jpg").write_bytes(b"<html>")
    (photos / "photos" / "broken.txt").write_text("not a picture")
    assert main(["data", "verify", "photos", "--workers", "0"]) == 1
    told = capsys.readouterr().out
    assert "1 of 1 files are broken" in told
    assert "12 samples are whole, not: broken (broken.jpg: " in told
    splits = packed("photos", "--val-share", "0.3", "--test-share", "0.3", "--license", "CC0")
    assert "left out (skipped.jsonl): damaged 1" in capsys.readouterr().out
    captions = {s.key: s.caption for split in splits.values() for s in split}
    assert captions == {f"day{n % 2}/COCO_{n:06d}": f"photo {n}" for n in range(12)}
    assert all(splits.values())
    assert main(["data", "verify", "out", "--workers", "0"]) == 0


def test_folders_named_after_splits_are_splits(photos):
    for old, new in (("day0", "train"), ("day1", "val")):
        (photos / "photos" / old).rename(photos / "photos" / new)
    splits = packed("photos")
    assert [len(split) for split in splits.values()] == [6, 6, 0]


def test_a_table(photos):
    with Path("captions.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["path", "caption", "question", "answer"])
        table.writeheader()
        row = {"path": "day0/COCO_000002.jpg", "caption": "two", "question": "how many?"}
        table.writerow(row | {"answer": "2"})
    (sample,) = packed("captions.csv", "--images", "photos")["train"]
    assert (sample.caption, sample.questions) == ("two", (("how many?", "2"),))


def test_vqav2_and_llava(photos):
    questions = [
        {"question_id": 10 * n, "image_id": n, "question": f"what is {n}?"} for n in (3, 4)
    ]
    answers = [{"answer": "a cat", "answer_id": i} for i in range(10)]
    annotations = [
        {
            "question_id": 10 * n,
            "image_id": n,
            "answers": answers,
            "multiple_choice_answer": "a cat",
        }
        for n in (3, 4)
    ]
    Path("q.json").write_text(json.dumps({"questions": questions}))
    Path("a.json").write_text(json.dumps({"annotations": annotations}))
    Path("photos/day0").rename("flat")  # the pictures of one folder, as COCO's
    for path in Path("photos/day1").iterdir():
        path.rename(Path("flat", path.name))
    one, other = packed("q.json", "a.json", "--images", "flat")["train"]
    assert one.questions == (("what is 3?", "a cat"),)
    assert other.answers == (("a cat",) * 10,)
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a dog"}]
    entries = [{"id": "1", "image": "COCO_000005.png", "conversations": turns}]
    Path("llava.json").write_text(json.dumps(entries))
    Path("out").rename("vqa")
    (sample,) = packed("llava.json", "--images", "flat")["train"]
    assert sample.questions == (("what?", "a dog"),)


def test_images_go_with_a_table_alone(photos, capsys):
    for args in (["photos", "--images", "x"], ["-c", "x.yaml", "--images", "x"]):
        assert main(["data", "pack", *args, "--out", "out"]) == 2
        assert "--images goes with a table" in capsys.readouterr().err
    assert not Path("out").exists()
