"""Inception Score of generated images."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from typing_extensions import override

from callbacks.efficientnet_features import shared_efficientnet
from callbacks.evaluation import check_counts
from callbacks.feature_extractors import ImageClassifier
from callbacks.feature_metrics.feature_rows import FeatureRows
from callbacks.generation_metric import GenerationMetric
from pretzel.errors import NothingToMeasure


class InceptionScore(GenerationMetric):
    """How sure a classifier is of each image, and how different its answers are, by torch-fidelity.

    ``exp(mean KL(p(y|x) || p(y)))``, at best the number of classes (Salimans et al. 2016, section
    4). No real image is looked at, and classes are ImageNet's: of other pictures it says little.
    Named ``inception_score`` with the standard Inception and ``inception_score_<extractor>`` with
    any other; ``<name>_std`` is over the splits.

    Args:
        classifier: Gives the logits; None for EfficientNet-Lite0's.
        splits: Parts of the images, shuffled, over which the score is averaged.
        seed: Seed of the shuffling.
    """

    reads_prompts = False

    def __init__(
        self, classifier: ImageClassifier | None = None, splits: int = 10, seed: int = 2020
    ) -> None:
        check_counts(self, splits=splits)
        self.classifier = classifier or shared_efficientnet()
        self.splits, self.seed = splits, seed
        self.name = f"inception_score{self.classifier.suffix}"
        self.reset()

    @override
    def prepare(self, device: torch.device) -> None:
        self.classifier.prepare()
        self.classifier.to(device)

    @override
    def describe(self) -> str:
        return f"{self.name}: {self.classifier.describe()}, splits {self.splits}"

    @override
    def names(self) -> set[str]:
        return {self.name, f"{self.name}_std", f"{self.name}_n"}

    @override
    def facts(self) -> dict[str, dict[str, Any]]:
        facts = {**self.classifier.facts(), "splits": self.splits}
        return {self.name: facts, f"{self.name}_std": facts}

    @override
    def reset(self) -> None:
        self._logits = FeatureRows()

    @override
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        self._logits.add(self.classifier.logits(self.classifier.features(images)))

    @override
    def compute(self) -> dict[str, float]:
        n = len(self._logits)
        if n < self.splits:
            raise NothingToMeasure(
                f"{self.name} needs at least {self.splits} generated images, the number of splits, "
                f"got {n}"
            )
        mean, std = isc_features_to_metric(
            self._logits.rows, self.splits, rng_seed=self.seed
        ).values()
        return {self.name: mean, f"{self.name}_std": std, f"{self.name}_n": float(n)}
