"""The real data that is shipped with the project."""

from abc import ABC
from collections.abc import Mapping
from types import MappingProxyType
from typing import final

from datamodules.data import DATA_DIR, NUM_SHARDS
from datamodules.sources.source import DataSource, Split


class EmbeddedShards(DataSource, ABC):
    """Shipped shards: four of training data, one of validation data, two of test data."""

    resident = True
    folder: str
    sizes: Mapping[Split, int]

    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the paths of a split's shards."""
        folder = DATA_DIR / self.folder
        return tuple(str(folder / f"{split}-{i:05d}.tar.gz") for i in range(NUM_SHARDS[split]))

    def num_samples(self, split: Split) -> int:
        """Return the number of samples of a split."""
        return self.sizes[split]


@final
class EasyVQA(EmbeddedShards):
    """easy-VQA: 4,000 + 1,000 images (64x64) of one coloured shape, with questions and answers.

    Captions are ``a {color} {shape}``, without what the answers leave open. About one in ten of its
    4,000 training images, chosen by a hash of the key, is validation data: its authors have none.
    At 64 pixels it takes 49 MB of memory.
    """

    folder = "easy_vqa"
    sizes = MappingProxyType({"train": 3556, "val": 444, "test": 1000})


@final
class FluentEmoji(EmbeddedShards):
    """Fluent Emoji 3D: 1,601 pictures (64x64, on white) captioned by their Unicode label.

    Skin-tone variants and flags are left out. One emoji in eight is a test sample and about one in
    nine a validation sample, chosen by a hash of its code points. At 64 pixels it takes 20 MB of
    memory.
    """

    folder = "fluent_emoji"
    sizes = MappingProxyType({"train": 1233, "val": 162, "test": 206})
