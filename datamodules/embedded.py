"""The real data that comes with the project."""

from typing import final

from datamodules.data import DATA_DIR
from datamodules.source import ShardSource, Split


@final
class EasyVQA(ShardSource):
    """easy-VQA: 4,000 + 1,000 images (64x64) of one coloured shape, with questions and answers.

    Captions are ``a {color} {shape}``, with what the answers leave open left out. The data set
    has no validation split: ``val`` is ``test``.
    """

    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the four training shards or the two test shards."""
        return _embedded("easy_vqa", split)

    def num_samples(self, split: Split) -> int:
        """Return the number of images of a split."""
        return 4000 if split == "train" else 1000

    @property
    def caption_field(self) -> str:
        """Field of the caption."""
        return "caption"

    @property
    def resident(self) -> bool:
        """Easy-VQA is kept in memory: 49 MB at 64 pixels."""
        return True


@final
class FluentEmoji(ShardSource):
    """Fluent Emoji 3D: 1,601 pictures (64x64, on white) captioned by their Unicode label.

    Skin-tone variants and flags are left out. ``val`` is ``test``: one emoji in eight, chosen by a
    hash of its code points.
    """

    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the four training shards or the two test shards."""
        return _embedded("fluent_emoji", split)

    def num_samples(self, split: Split) -> int:
        """Return the number of pictures of a split."""
        return 1395 if split == "train" else 206

    @property
    def caption_field(self) -> str:
        """Field of the caption."""
        return "caption"

    @property
    def resident(self) -> bool:
        """Fluent Emoji is kept in memory: 20 MB at 64 pixels."""
        return True


def _embedded(name: str, split: Split) -> tuple[str, ...]:
    prefix, count = ("train", 4) if split == "train" else ("test", 2)
    return tuple(str(DATA_DIR / name / f"{prefix}-{i:05d}.tar.gz") for i in range(count))
