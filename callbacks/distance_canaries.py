r"""Checks of metrics between sets of images: real images against other real ones, and noise.

The real images are cut at random into two halves, which stand for generated and real ones. What the
metric says of them is held against three things that are known:

* The same of many other random halves. All are equally likely to be the one that was measured, so
  that a right metric is outside of all r of them with probability 2 / (r + 1).
* The same halves by their features, computed once and alike for both: what is done to generated
  images and not to real ones, or the reverse, is a difference.
* The expectation over all halves, which is exact for KID (0), MMD (of the V-statistic
  $2 (\bar k_{ii} - \bar k_{ij}) / n$) and density (1). FID's has no closed form; in its place
  stands the same value by another equation: $\operatorname{tr}(C C')^{1/2}$ is the sum of the
  singular values of $X Y^\top$ over n - 1, where X and Y are the centred features.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from callbacks.canary import Canary, noise_like
from callbacks.feature_metrics.base import FeatureMetric
from callbacks.feature_metrics.feature_rows import FeatureRows
from callbacks.feature_metrics.fid import FID
from callbacks.feature_metrics.frechet import Moments
from callbacks.generation_metric import ReferenceMetric
from pretzel.rng import stream

NUM_RESAMPLINGS = 199
_NUM_BY_IMAGES = 39
"""Resamplings of a metric without features: each goes through all images."""
_STANDARD_ERRORS = 4.0
"""Of a mean from its expectation: a right metric is further away once in 16,000 times."""
_FAR = 1.5
"""Noise must be so many times as far from the mean of halves as the farthest of them.

Precision cannot be below 0: of few images more cannot be asked.
"""
_EQUAL = 0.01
"""Of a standard deviation over halves, within which values of the same features are equal."""


def distance_canaries(
    metric: ReferenceMetric, images: Float[Tensor, "n ..."], num_resamplings: int
) -> list[Canary]:
    """Check a metric between real and generated images on real ones and on noise.

    Args:
        metric: The metric, prepared.
        images: Real images in [-1, 1], at least four.
        num_resamplings: Random halves that the measured one is compared with.
    """
    halves = _Halves(metric, images)
    name, value = halves.by_images(0)
    noise = halves.by_images(0, to_noise=True)[1]
    if isinstance(metric, FeatureMetric):
        features = _Features(metric, images)
        values = [features.measure(*halves.cut(1 + n)) for n in range(num_resamplings)]
    else:
        count = min(num_resamplings, _NUM_BY_IMAGES)
        values = [halves.by_images(1 + n)[1] for n in range(count)]
    resampled = torch.tensor(values, dtype=torch.float64)
    low, high, mean = (float(x) for x in (resampled.min(), resampled.max(), resampled.mean()))
    spread = float(resampled.std())
    sign = -1 if metric.higher_is_better else 1
    farthest = mean - low if metric.higher_is_better else high - mean
    count, half = len(values), halves.size
    found = [
        Canary(
            metric=name,
            check=f"real against real, {half} and {half}",
            expected=f"must be within {count} other halves, {low:.4g} to {high:.4g} (false alarm: "
            f"1 in {(count + 1) / 2:.0f})",
            value=value,
            passed=low <= value <= high,
        ),
        Canary(
            metric=name,
            check=f"noise against real, {half} and {half}",
            expected=f"must be far {'below' if metric.higher_is_better else 'above'} all of them",
            value=noise,
            passed=sign * (noise - mean) > _FAR * farthest,
        ),
    ]
    if not isinstance(metric, FeatureMetric):
        return found
    same = features.measure(*halves.cut(0))
    found.append(
        Canary(
            metric=name,
            check="the same halves by features, computed once",
            expected=f"must be the value by images, {value:.6g}",
            value=same,
            passed=abs(same - value) <= _EQUAL * spread + 1e-6 * abs(value),
        )
    )
    expected = metric.expected_of_halves(features.rows)
    if expected is not None:
        error = _STANDARD_ERRORS * spread / count**0.5
        found.append(
            Canary(
                metric=name,
                check=f"mean of the {count} other halves",
                expected=f"must be its expectation at this n, {expected:.4g} ± {error:.2g} (false "
                "alarm: 1 in 16,000)",
                value=mean,
                passed=abs(mean - expected) <= error + 1e-9,
            )
        )
    if isinstance(metric, FID):
        own, others = halves.cut(0)
        other = frechet_by_singular_values(features.rows[others], features.rows[own])
        found.append(
            Canary(
                metric=name,
                check="the same halves by another equation, of singular values",
                expected=f"must be the value by features, {same:.6g}",
                value=other,
                passed=abs(other - same) <= 1e-4 * abs(other),
            )
        )
    return found


class _Halves:
    """Real images cut into random halves by number."""

    def __init__(self, metric: ReferenceMetric, images: Float[Tensor, "n ..."]) -> None:
        self.metric, self.images = metric, images
        self.size = len(images) // 2

    def cut(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the rows that stand for real images, and for generated ones."""
        order = torch.randperm(len(self.images), generator=stream("canary", number))
        return order[: self.size], order[self.size : 2 * self.size]

    def by_images(self, number: int, *, to_noise: bool = False) -> tuple[str, float]:
        """Return name and value of the metric as a run would measure it."""
        own, others = (self.images[rows.to(self.images.device)] for rows in self.cut(number))
        self.metric.reset()
        self.metric.reset_real()
        self.metric.update_real(own)
        self.metric.update(noise_like(others) if to_noise else others, [""] * self.size)
        return next(iter(self.metric.compute().items()))


class _Features:
    """Features of real images, computed once, and what a metric says of their rows."""

    def __init__(
        self, metric: FeatureMetric[Moments] | FeatureMetric[FeatureRows], images: Tensor
    ) -> None:
        self.metric = metric
        self.rows = metric.extractor.features(images).cpu()
        self._shown = self.rows
        if isinstance(metric, FID):  # the same in any basis: one of no more numbers than images
            centred = self.rows.double() - self.rows.double().mean(dim=0)
            u, s, _ = torch.linalg.svd(centred, full_matrices=False)
            self._shown = u * s

    def measure(self, real: Tensor, generated: Tensor) -> float:
        """Return the first value."""
        return self.metric.of_features(self._shown[generated], self._shown[real])


def frechet_by_singular_values(x: Float[Tensor, "n f"], y: Float[Tensor, "m f"]) -> float:
    """Return the Fréchet distance of Gaussians fitted to features, without their covariances."""
    x_mean, y_mean = x.double().mean(dim=0), y.double().mean(dim=0)
    x, y = x.double() - x_mean, y.double() - y_mean
    n, m = len(x) - 1, len(y) - 1
    root = torch.linalg.svdvals(x @ y.T).sum() / (n * m) ** 0.5
    distance = (x_mean - y_mean).square().sum() + x.square().sum() / n + y.square().sum() / m
    return float(distance - 2 * root)
