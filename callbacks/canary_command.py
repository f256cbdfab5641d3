"""``pretzel metrics canary``: the metrics of a configuration on the real images of its data."""

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule

from callbacks.canaries import image_canaries, question_canaries
from callbacks.canary import Canary
from callbacks.easy_vqa.judge_features import JudgeFeatures
from callbacks.easy_vqa.shape_accuracy import ShapeAccuracy
from callbacks.evaluation import check_counts
from callbacks.feature_metrics.fid import FID
from callbacks.feature_metrics.kid import KID
from callbacks.feature_metrics.mmd import MMD
from callbacks.feature_metrics.precision_recall import DensityCoverage, PrecisionRecall
from callbacks.generation import Generation
from callbacks.generation_metric import GenerationMetric
from callbacks.protocols import HasEvaluationSamples, HasEvaluationTexts, lacks
from pretzel.errors import UserError
from pretzel.runs.cli import import_parts
from pretzel.runs.config.class_paths import named_class
from pretzel.runs.config.explain import construction, parsing
from pretzel.runs.config.nested import listed
from pretzel.runs.config.overlay import Config, at, fold, read
from pretzel.runs.config.typed_parser import TypedParser

NUM_TRAINING_SAMPLES = 100_000
"""Training samples whose questions the blind baseline learns from, as VQAAccuracy does."""
_SHIPPED = Path(__file__).parents[1] / "ablations" / "base" / "easy_vqa.yaml"


def canary(options: argparse.Namespace) -> int:
    """Print a line for each check; 1 if one fails."""
    check_counts(canary, num_images=options.num_images, resamplings=options.resamplings)
    import_parts()
    data, metrics = _configured(options.config)
    samples = list(islice(data.evaluation_samples("test"), options.num_images))
    device = torch.device(options.device)
    found = image_canaries(metrics, samples, device, options.resamplings)
    if isinstance(data, HasEvaluationTexts):
        training = data.evaluation_texts("train", NUM_TRAINING_SAMPLES)
        found += question_canaries([pair for one in training for pair in one.questions], samples)
    if not found:
        raise UserError("there is nothing to check: no metric of pictures, and no questions")
    _show(found)
    return int(not all(one.passed for one in found))


def _configured(files: Sequence[str]) -> tuple[HasEvaluationSamples, list[GenerationMetric]]:
    """Return data and metrics; those of the embedded easy-VQA where no file is given."""
    config = fold([read(file) for file in files or [str(_SHIPPED)]])
    nodes = [n for n in listed(at(config.values, ("trainer", "callbacks"))) if _generates(n)]
    values = {"data": config.values.get("data"), "callbacks": nodes if files else []}
    if values["data"] is None:
        raise UserError(f"{' '.join(files)}: names no data")
    parser = TypedParser(exit_on_error=False)
    parser.add_argument("--data", type=LightningDataModule)
    parser.add_argument("--callbacks", type=list[Callback])
    named = Config(values=values, sources={})
    with parsing(named, lambda: ()):
        namespace = parser.parse_object(values)
    with construction(named):
        built = parser.instantiate(namespace)
    if not isinstance(built.data, HasEvaluationSamples):
        raise lacks("canary", "a datamodule with evaluation_samples(split)", built.data)
    if files:
        return built.data, [metric for one in built.callbacks for metric in one.metrics]
    judge = JudgeFeatures()
    distances = [kind(judge) for kind in (FID, KID, MMD, PrecisionRecall, DensityCoverage)]
    return built.data, [ShapeAccuracy(), *distances]


def _generates(node: object) -> bool:
    name = node.get("class_path") if isinstance(node, dict) else node
    kind = named_class(name, (Callback,)) if isinstance(name, str) else None
    return isinstance(kind, type) and issubclass(kind, Generation)


def _show(canaries: Sequence[Canary]) -> None:
    width = max(len(one.metric) for one in canaries)
    for one in canaries:
        verdict = "pass" if one.passed else "FAIL"
        print(f"{verdict}  {one.metric:{width}}  {one.value:>10.4g}  {one.check}; {one.expected}")
