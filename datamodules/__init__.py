"""WebDataset datamodules, and the real data that is shipped with the project."""

from datamodules.datamodule import WebDatasetDataModule
from datamodules.embedded import EasyVQA, FluentEmoji
from datamodules.interleaved import AsWritten, Conversations
from datamodules.recipe import Captions, Mixture, Questions, Recipe, SampleRecipe
from datamodules.sample import CorruptSample, InterleavedSample, Sample
from datamodules.source import ShardSource, Split
from datamodules.user_shards import Shards
from datamodules.vlm_recipes import CaptionQuestions, Descriptions

__all__ = [
    "AsWritten",
    "CaptionQuestions",
    "Captions",
    "Conversations",
    "CorruptSample",
    "Descriptions",
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
