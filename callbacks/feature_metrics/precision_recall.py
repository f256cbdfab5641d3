"""Fidelity and coverage of generated images, apart: precision and recall, density and coverage."""

from abc import ABC
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from callbacks.evaluation import check_counts
from callbacks.feature_extractors import FeatureExtractor
from callbacks.feature_metrics.base import FeatureMetric
from callbacks.feature_metrics.feature_rows import FeatureRows
from callbacks.feature_metrics.neighbours import ball_radii, points_in_balls


class _BallMetric(FeatureMetric[FeatureRows], ABC):
    higher_is_better: ClassVar[bool] = True

    def __init__(
        self, values: list[str], extractor: FeatureExtractor | None, neighbours: int
    ) -> None:
        check_counts(self, neighbours=neighbours)
        super().__init__(values, extractor, FeatureRows)
        self.neighbours = neighbours

    @override
    def settings(self) -> dict[str, Any]:
        return {"neighbours": self.neighbours}

    def _look(self, points: FeatureRows, centres: FeatureRows) -> tuple[Tensor, Tensor]:
        """Return the number of balls that each point lies in, and whether each ball has one."""
        radii = ball_radii(centres.rows, self.neighbours, self._device)
        return points_in_balls(points.rows, centres.rows, radii, self._device)


class PrecisionRecall(_BallMetric):
    """Precision and recall of generated images (Kynkäänniemi et al. 2019, equations 1 and 2).

    ``precision_<extractor>`` is the share of generated images within the ball of a real one, which
    reaches to its k-th nearest other real one; ``recall_<extractor>`` the share of real images
    within a ball of a generated one. Both depend on the numbers of images.

    Args:
        extractor: Computes the features; None for EfficientNet-Lite0's.
        neighbours: Which neighbour a ball reaches to, k.
    """

    def __init__(self, extractor: FeatureExtractor | None = None, neighbours: int = 3) -> None:
        super().__init__(["precision", "recall"], extractor, neighbours)

    @override
    def measure(self, generated: FeatureRows, real: FeatureRows) -> list[float]:
        self.require(self.neighbours + 1, "neighbours")
        pairs = ((generated, real), (real, generated))
        return [float((self._look(*pair)[0] > 0).double().mean()) for pair in pairs]


class DensityCoverage(_BallMetric):
    """Density and coverage of generated images (Naeem et al. 2020, equations 3 and 4).

    ``density_<extractor>`` counts in how many balls of real images a generated one lies, over k:
    one outlier with a large ball counts little. It may exceed 1. ``coverage_<extractor>`` is the
    share of real images whose ball has a generated one.

    Args:
        extractor: Computes the features; None for EfficientNet-Lite0's.
        neighbours: Which neighbour a ball reaches to, k.
    """

    def __init__(self, extractor: FeatureExtractor | None = None, neighbours: int = 5) -> None:
        super().__init__(["density", "coverage"], extractor, neighbours)

    @override
    def expected_of_halves(self, features: Float[Tensor, "n f"]) -> float:
        return 1.0  # of all points around a centre, any is as likely a real one

    @override
    def measure(self, generated: FeatureRows, real: FeatureRows) -> list[float]:
        self.require(self.neighbours + 1, "neighbours")
        counts, has_point = self._look(generated, real)
        return [float(counts.double().mean()) / self.neighbours, float(has_point.double().mean())]
