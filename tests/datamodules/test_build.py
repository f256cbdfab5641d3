"""The rebuild script on a miniature of the packages."""

import hashlib
import io
import json
import tarfile

import pytest
from PIL import Image

from datamodules.data.build import build, easy_vqa_samples, fluent_emoji_samples, is_held_out, main


@pytest.fixture
def packages(tmp_path, encoded):
    for split in ("train", "test"):
        folder = tmp_path / "easy" / "easy_vqa" / "data" / split
        (folder / "images").mkdir(parents=True)
        questions = []
        for number in range(17, 22):  # a hash holds out number 19 of train
            (folder / "images" / f"{number}.png").write_bytes(encoded(size=(64, 64)))
            questions.append(["what color is the circle?", "red", number])
        (folder / "questions.json").write_text(json.dumps(questions))
    assets = tmp_path / "fluent" / "assets"
    assets.mkdir(parents=True)
    entries = []
    for number in range(24):
        code = f"{0x1F600 + number:X}"
        image = Image.new("RGBA", (128, 128), (0, 0, 255, 0))
        image.paste((0, 0, 255, 255), (32, 32, 96, 96))
        image.save(assets / f"{code.lower()}.webp", lossless=True)
        entries.append({"hexcode": code, "label": f"face {number}", "tags": ["t"], "group": 0})
    image.save(assets / "1f600-1f3fb.webp", lossless=True)
    image.save(assets / "1f1e9-1f1ea.webp", lossless=True)
    entries.append({"hexcode": "1F1E9-1F1EA", "label": "flag", "tags": ["t"], "group": 9})
    labels = tmp_path / "labels" / "en"
    labels.mkdir(parents=True)
    (labels / "data.json").write_text(json.dumps(entries))
    return tmp_path


def build_into(packages, name):
    output = packages / name
    build(packages / "easy", packages / "fluent", packages / "labels", output)
    return output


def test_two_builds_give_the_same_bytes(packages):
    first, second = build_into(packages, "a"), build_into(packages, "b")
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(names) == 15
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_shards_are_as_their_checksums_and_hold_no_time_owner_or_machine(packages):
    output = build_into(packages, "a")
    for line in (output / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((output / name).read_bytes()).hexdigest() == digest
    for path in output.rglob("*.tar.gz"):
        assert path.read_bytes()[4:8] == b"\0\0\0\0"  # gzip's time
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")


def test_missing_package_is_named(packages, capsys):
    args = ["--easy-vqa", str(packages / "nowhere"), "--output", str(packages / "out")]
    args += ["--fluent-emoji", str(packages / "fluent"), "--emojibase", str(packages / "labels")]
    assert main(args) == 2
    message = capsys.readouterr().err
    assert "nowhere" in message
    assert len(message.splitlines()) == 1
    assert not (packages / "out").exists()


def test_validation_is_held_out_of_training_alone_by_the_key(packages):
    easy = easy_vqa_samples(packages / "easy")
    emoji = fluent_emoji_samples(packages / "fluent", packages / "labels")
    for splits, key_of in ((easy, str), (emoji, lambda key: key[13:].upper())):
        keys = {split: {next(iter(s)).split(".")[0] for s in of} for split, of in splits.items()}
        assert keys["val"] == {k for k in keys["train"] | keys["val"] if is_held_out(key_of(k))}
        assert keys["val"]
        assert keys["train"]
    assert [next(iter(sample)) for sample in easy["val"]] == ["easy_vqa_train_0019.png"]
    assert len(easy["test"]) == 5


def test_flags_and_skin_tones_are_left_out_and_transparency_is_white(packages):
    splits = fluent_emoji_samples(packages / "fluent", packages / "labels")
    samples = splits["train"] + splits["val"] + splits["test"]
    assert len(samples) == 24
    assert splits["test"]
    with Image.open(io.BytesIO(next(iter(samples[0].values())))) as image:
        assert image.size == (64, 64)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert image.convert("RGB").getpixel((32, 32)) == (0, 0, 255)
