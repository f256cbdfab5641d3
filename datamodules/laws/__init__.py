"""The laws of sources, recipes, crops and flips, and the cases of those that are shipped."""

import tempfile
from collections.abc import Callable
from functools import cache, partial
from itertools import islice
from pathlib import Path

from datamodules.data import DATA_DIR
from datamodules.decoding.crops import CentreCrop, Crop, Pad, RandomCrop
from datamodules.decoding.flips import Flip, HorizontalFlip
from datamodules.laws import crops, flips, recipes, sources
from datamodules.reading.tar_shard import RawSample
from datamodules.recipes.interleaved import AsWritten, Conversations
from datamodules.recipes.recipe import Captions, Mixture, Questions, Recipe
from datamodules.recipes.vlm_pretraining import CaptionQuestions, Descriptions
from datamodules.scenes.edit_source import SceneEdits
from datamodules.scenes.shapes import ColouredShapes
from datamodules.scenes.source import Scenes
from datamodules.sources.blend import Blend
from datamodules.sources.embedded import EasyVQA, FluentEmoji
from datamodules.sources.folder import Folder
from datamodules.sources.shards import Shards
from datamodules.sources.source import DataSource, Part
from datamodules.suites.gqa import GQA
from datamodules.suites.mmbench import MMBench
from datamodules.suites.mme import MME
from datamodules.suites.pope import POPE
from datamodules.suites.seed_bench import SEEDBench
from datamodules.suites.vqav2 import VQAv2
from pretzel.testing.suite import Law, laws_in

LAWS: dict[type, list[Law]] = {
    DataSource: laws_in(sources),
    Recipe: laws_in(recipes),
    Crop: laws_in(crops),
    Flip: laws_in(flips),
}

_EMOJI = DATA_DIR / "fluent_emoji"


@cache
def _unpacked() -> tempfile.TemporaryDirectory[str]:
    """Return a folder of pictures with captions, which is deleted when the process ends."""
    folder = tempfile.TemporaryDirectory()
    source = FluentEmoji()
    for number, raw in enumerate(islice(source.read(source.shards("test")[0]), 70)):
        assert isinstance(raw, RawSample)
        for suffix, content in raw.members.items():
            (Path(folder.name) / f"{number}.{suffix}").write_bytes(content)
    return folder


def folder() -> Folder:
    """Return a folder of pictures, of which shares are held out."""
    return Folder(_unpacked().name, val=0.2, test=0.2)


def blend() -> Blend:
    """Return shards and a folder with a recipe each."""
    return Blend(
        [
            Part(name="emoji", source=FluentEmoji(), recipe=Captions(0.5), weight=1.0),
            Part(name="folder", source=folder(), recipe=Descriptions(), weight=2.5),
        ]
    )


def scenes() -> Scenes:
    """Return a few small scenes."""
    return Scenes(ColouredShapes(), size=32, num_train=30, num_val=10, num_test=10)


def scene_edits() -> SceneEdits:
    """Return a few small edits."""
    return SceneEdits(scenes())


def mixture() -> Mixture:
    """Return a mixture of recipes for all kinds of samples."""
    return Mixture(
        [Captions(0.5), Conversations(drop=0.5, shown=0.5), AsWritten(0.5)], [1.0, 2.0, 3.0]
    )


CASES: dict[type, list[Callable[[], object]]] = {
    EasyVQA: [EasyVQA],
    FluentEmoji: [FluentEmoji],
    Shards: [
        partial(
            Shards,
            train=str(_EMOJI / "train-{00000..00001}.tar.gz"),
            test=str(_EMOJI / "test-00000.tar.gz"),
        )
    ],
    Folder: [folder],
    Blend: [blend],
    SceneEdits: [scene_edits],
    Scenes: [scenes],
    CentreCrop: [CentreCrop],
    RandomCrop: [partial(RandomCrop, scale=(0.2, 1.0), aspect=(0.5, 2.0))],
    Pad: [partial(Pad, background="#102030")],
    HorizontalFlip: [HorizontalFlip],
    Captions: [partial(Captions, drop=0.5)],
    Questions: [partial(Questions, per_image=2)],
    Mixture: [mixture],
    AsWritten: [partial(AsWritten, drop=0.5)],
    Conversations: [partial(Conversations, num_turns=3, drop=0.5, shown=0.5)],
    Descriptions: [Descriptions, partial(Descriptions, per_image=0)],
    CaptionQuestions: [CaptionQuestions],
}
WITHOUT_CASE: dict[type, str] = dict.fromkeys(
    (GQA, MME, POPE, MMBench, SEEDBench, VQAv2),
    "its files are not shipped: check it with --init-args that name them",
)
