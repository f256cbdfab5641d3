"""The laws of metrics of generated images, and the cases of those that are shipped."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from callbacks.clip_score import CLIPScore
from callbacks.dpg.score import DPGBench
from callbacks.dual_encoder.score import EmbeddedMatch
from callbacks.easy_vqa.shape_accuracy import ShapeAccuracy
from callbacks.feature_extractors import FeatureExtractor, ModuleFeatures
from callbacks.feature_metrics.fid import FID
from callbacks.feature_metrics.inception_score import InceptionScore
from callbacks.feature_metrics.kid import KID
from callbacks.feature_metrics.mmd import MMD
from callbacks.feature_metrics.precision_recall import DensityCoverage, PrecisionRecall
from callbacks.generation_metric import GenerationMetric
from callbacks.geneval.score import GenEval
from callbacks.laws import metrics
from callbacks.scenes.score import SceneAccuracy
from callbacks.siglip_score import SigLIPScore
from pretzel.testing.suite import Law, laws_in

LAWS: dict[type, list[Law]] = {GenerationMetric: laws_in(metrics)}


def features() -> FeatureExtractor:
    """Return an extractor of sixteen features without weights of its own."""
    pool = nn.Sequential(nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten())
    return ModuleFeatures(pool.to(torch.float64), "pooled")


def distance(kind: Callable[..., GenerationMetric], **options: int) -> GenerationMetric:
    """Return a distance between features."""
    return kind(features(), **options)


CASES: dict[type, list[Callable[[], object]]] = {
    EmbeddedMatch: [EmbeddedMatch],
    FID: [partial(distance, FID)],
    InceptionScore: [partial(InceptionScore, splits=2)],
    KID: [partial(distance, KID, subsets=3, subset_size=4)],
    MMD: [partial(distance, MMD), partial(distance, MMD, unbiased=True)],
    PrecisionRecall: [partial(distance, PrecisionRecall, neighbours=1)],
    DensityCoverage: [partial(distance, DensityCoverage, neighbours=1)],
    ShapeAccuracy: [ShapeAccuracy],
}
WITHOUT_CASE: dict[type, str] = {
    CLIPScore: "no CLIP is shipped: check it with --init-args.model FOLDER",
    DPGBench: "no model of images and texts is shipped, and its prompts are those of its table",
    GenEval: "no object detector is shipped, and its prompts are those of its file",
    SceneAccuracy: "its look is one of datamodules: tests/callbacks/test_scene_accuracy.py",
    SigLIPScore: "no SigLIP is shipped: check it with --init-args.model FOLDER",
}
