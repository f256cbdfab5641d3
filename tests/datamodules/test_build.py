"""The rebuild script on a miniature of the packages."""

import hashlib
import io
import json
import tarfile

import pytest
from PIL import Image

from datamodules.data.build import build, easy_vqa_samples, fluent_emoji_samples, main
from pretzel.errors import UserError


@pytest.fixture
def packages(tmp_path, encoded):
    for split in ("train", "test"):
        folder = tmp_path / "easy" / "easy_vqa" / "data" / split
        (folder / "images").mkdir(parents=True)
        questions = []
        for number in range(5):
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


def build_into(packages, name, val_one_in=None):
    output = packages / name
    build(packages / "easy", packages / "fluent", packages / "labels", output, val_one_in)
    return output


def test_two_builds_give_the_same_bytes(packages):
    first, second = build_into(packages, "a", 2), build_into(packages, "b", 2)
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
    arguments = [(packages / "easy",), (packages / "fluent", packages / "labels")]
    for samples, where in zip((easy_vqa_samples, fluent_emoji_samples), arguments, strict=True):
        whole, split = samples(*where), samples(*where, val_one_in=2)
        names = lambda members: [name for sample in members for name in sample]  # noqa: E731
        assert split["test"] == whole["test"]
        assert not whole["val"]
        assert split["val"]
        assert split["train"]
        assert not set(names(split["val"])) & set(names(split["train"]))
        both = names(split["val"]) + names(split["train"])
        assert sorted(both) == sorted(names(whole["train"]))
    with pytest.raises(UserError, match="val_one_in must be at least 2, not 1"):
        build(*arguments[0], *arguments[1], packages / "out", val_one_in=1)
    assert not (packages / "out").exists()


def test_flags_and_skin_tones_are_left_out_and_transparency_is_white(packages):
    splits = fluent_emoji_samples(packages / "fluent", packages / "labels")
    samples = splits["train"] + splits["test"]
    assert len(samples) == 24
    assert splits["test"]
    with Image.open(io.BytesIO(next(iter(samples[0].values())))) as image:
        assert image.size == (64, 64)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert image.convert("RGB").getpixel((32, 32)) == (0, 0, 255)
