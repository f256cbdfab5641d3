"""WebDataset datamodules and the embedded real data."""

from datamodules.datamodule import WebDatasetDataModule
from datamodules.embedded import EasyVQA, FluentEmoji
from datamodules.recipe import Captions, Mixture, Questions, Recipe
from datamodules.sample import CorruptSample, Sample
from datamodules.source import ShardSource, Split
from datamodules.user_shards import Shards

__all__ = [
    "Captions",
    "CorruptSample",
    "EasyVQA",
    "FluentEmoji",
    "Mixture",
    "Questions",
    "Recipe",
    "Sample",
    "ShardSource",
    "Shards",
    "Split",
    "WebDatasetDataModule",
]
