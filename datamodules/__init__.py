"""WebDataset datamodules and the embedded real data."""

from datamodules.datamodule import WebDatasetDataModule
from datamodules.embedded import EasyVQA, FluentEmoji
from datamodules.interleaved import AsWritten, Conversations
from datamodules.recipe import Captions, Mixture, Questions, Recipe, SampleRecipe
from datamodules.sample import CorruptSample, InterleavedSample, Sample
from datamodules.source import ShardSource, Split
from datamodules.user_shards import Shards

__all__ = [
    "AsWritten",
    "Captions",
    "Conversations",
    "CorruptSample",
    "EasyVQA",
    "FluentEmoji",
    "InterleavedSample",
    "Mixture",
    "Questions",
    "Recipe",
    "Sample",
    "SampleRecipe",
    "ShardSource",
    "Shards",
    "Split",
    "WebDatasetDataModule",
]
