"""Writes the videos as shards: ``python -m pretzel_moving_shapes FOLDER``.

Every video that the world can show is written once, as an animated WebP with its caption. One in
ten is of the validation split and one in ten of the test split, by a hash of key and seed: no two
splits share a video, but all have every caption.
"""

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path

from datamodules.reading.tar_writer import ShardWriter
from PIL import Image
from pretzel.files.atomic import whole_file
from pretzel.media import Video

from pretzel_moving_shapes.world import Motion, motions

_SPLITS = ("val", "test", *["train"] * 8)
MILLISECONDS = 100


def split_of(motion: Motion, seed: int) -> str:
    """Return the split that a video belongs to."""
    digest = hashlib.sha256(f"{seed} {motion.key}".encode()).digest()
    return _SPLITS[int.from_bytes(digest[:8], "big") % len(_SPLITS)]


def write_shards(folder: Path, videos: Iterable[Motion], seed: int = 0) -> dict[str, int]:
    """Write ``train.tar``, ``val.tar`` and ``test.tar``; return the videos of each."""
    counts = {}
    shuffled = sorted(videos, key=lambda motion: hashlib.sha256(motion.key.encode()).digest())
    for split in ("train", "val", "test"):
        chosen = [motion for motion in shuffled if split_of(motion, seed) == split]
        with whole_file(folder / f"{split}.tar") as partial, partial.open("wb") as file:
            shard = ShardWriter(file)
            for motion in chosen:
                shard.write(
                    {
                        f"{motion.key}.webp": _webp(motion),
                        f"{motion.key}.txt": motion.caption.encode(),
                    }
                )
            shard.close()
        counts[split] = len(chosen)
    return counts


def _webp(motion: Motion) -> bytes:
    frames = [Image.fromarray(frame) for frame in motion.frames()]
    return Video(frames=frames, milliseconds=MILLISECONDS).encoded()


def main() -> None:
    """Write the shards into the folder that is named."""
    parser = argparse.ArgumentParser(description="Write the videos of moving shapes as shards.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the division into splits")
    options = parser.parse_args()
    counts = write_shards(options.folder, motions(), options.seed)
    print(f"{options.folder}: " + ", ".join(f"{n} {split}" for split, n in counts.items()))


if __name__ == "__main__":
    main()
