"""WebDataset datamodules, and the real data that is shipped with the project."""

from datamodules.datamodule import WebDatasetDataModule
from datamodules.decoding.captions import (
    CaptionChoice,
    FirstCaption,
    RandomCaption,
    WeightedCaption,
)
from datamodules.decoding.crops import CentreCrop, Crop, Pad, RandomCrop
from datamodules.decoding.flips import Flip, HorizontalFlip
from datamodules.recipes.interleaved import AsWritten, Conversations
from datamodules.recipes.recipe import Captions, Mixture, Questions, Recipe, SampleRecipe
from datamodules.recipes.vlm_pretraining import CaptionQuestions, Descriptions
from datamodules.sample import InterleavedSample, Sample, Skipped, Unusable
from datamodules.scenes.caption_questioner import SceneCaptionQuestioner
from datamodules.scenes.edit_source import SceneEdits
from datamodules.scenes.look import Look
from datamodules.scenes.shapes import ColouredShapes
from datamodules.scenes.source import Scenes
from datamodules.scenes.sprites import EmojiSprites
from datamodules.sources.blend import Blend
from datamodules.sources.embedded import EasyVQA, FluentEmoji
from datamodules.sources.folder import Folder
from datamodules.sources.shards import Shards
from datamodules.sources.source import DataSource, Part, Split
from datamodules.suites.gqa import GQA
from datamodules.suites.mmbench import MMBench
from datamodules.suites.mme import MME
from datamodules.suites.pope import POPE
from datamodules.suites.seed_bench import SEEDBench
from datamodules.suites.suite import Suite
from datamodules.suites.vqav2 import VQAv2

__all__ = [
    "GQA",
    "MME",
    "POPE",
    "AsWritten",
    "Blend",
    "CaptionChoice",
    "CaptionQuestions",
    "Captions",
    "CentreCrop",
    "ColouredShapes",
    "Conversations",
    "Crop",
    "DataSource",
    "Descriptions",
    "EasyVQA",
    "EmojiSprites",
    "FirstCaption",
    "Flip",
    "FluentEmoji",
    "Folder",
    "HorizontalFlip",
    "InterleavedSample",
    "Look",
    "MMBench",
    "Mixture",
    "Pad",
    "Part",
    "Questions",
    "RandomCaption",
    "RandomCrop",
    "Recipe",
    "SEEDBench",
    "Sample",
    "SampleRecipe",
    "SceneCaptionQuestioner",
    "SceneEdits",
    "Scenes",
    "Shards",
    "Skipped",
    "Split",
    "Suite",
    "Unusable",
    "VQAv2",
    "WebDatasetDataModule",
    "WeightedCaption",
]
