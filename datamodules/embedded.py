"""The real data that is shipped with the project."""

from abc import ABC
from typing import final

from datamodules.data import DATA_DIR
from datamodules.source import ShardSource, Split


class EmbeddedShards(ShardSource, ABC):
    """Shipped shards: four of training data, two of test data; ``val`` is ``test``."""

    resident = True
    folder: str
    num_train: int
    num_test: int

    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the four training shards or the two test shards."""
        prefix, count = ("train", 4) if split == "train" else ("test", 2)
        folder = DATA_DIR / self.folder
        return tuple(str(folder / f"{prefix}-{i:05d}.tar.gz") for i in range(count))

    def num_samples(self, split: Split) -> int:
        """Return the number of samples of a split."""
        return self.num_train if split == "train" else self.num_test


@final
class EasyVQA(EmbeddedShards):
    """easy-VQA: 4,000 + 1,000 images (64x64) of one coloured shape, with questions and answers.

    Captions are ``a {color} {shape}``, without what the answers leave open. The data set has no
    validation split. At 64 pixels it takes 49 MB of memory.
    """

    folder = "easy_vqa"
    num_train, num_test = 4000, 1000


@final
class FluentEmoji(EmbeddedShards):
    """Fluent Emoji 3D: 1,601 pictures (64x64, on white) captioned by their Unicode label.

    Skin-tone variants and flags are left out. One emoji in eight is a test sample, chosen by a hash
    of its code points. At 64 pixels it takes 20 MB of memory.
    """

    folder = "fluent_emoji"
    num_train, num_test = 1395, 206
