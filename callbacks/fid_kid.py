"""FID and KID between generated and real images, on torchmetrics."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from typing_extensions import override

from callbacks.evaluation import check_counts
from callbacks.feature_extractors import FeatureExtractor
from callbacks.generation_metric import ReferenceMetric
from pretzel.errors import NothingToMeasure, UserError

M = TypeVar("M", FrechetInceptionDistance, KernelInceptionDistance)


class _FeatureDistance(ReferenceMetric, ABC, Generic[M]):
    def __init__(self, prefix: str, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self.name = f"{prefix}{extractor.suffix}"
        self._metric: M | None = None

    @abstractmethod
    def _build(self, images: Float[Tensor, "n 3 height width"]) -> M:
        """Return the metric of torchmetrics; it will live on rank zero alone."""

    @override
    def prepare(self, device: torch.device) -> None:
        self.extractor.prepare()
        self.extractor.to(device)
        if self._metric is not None:
            self._metric.to(device)

    @override
    def facts(self) -> dict[str, dict[str, Any]]:
        return {self.name: {"extractor": self.extractor.describe()}}

    @override
    def names(self) -> set[str]:
        return {self.name, f"{self.name}_n", f"{self.name}_n_real"}

    @override
    def describe(self) -> str:
        return f"{self.name}: {self.extractor.describe()}"

    def _update(self, images: Float[Tensor, "n 3 height width"], real: bool) -> None:
        if self._metric is None:
            self._metric = self._build(images).to(images.device)
        self._metric.update(images, real=real)

    @override
    def reset(self) -> None:
        if self._metric is not None:
            self._metric.reset()

    @override
    def reset_real(self) -> None:
        self._metric = None

    @override
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        self._update(images, real=False)

    @override
    def update_real(self, images: Float[Tensor, "n 3 height width"]) -> None:
        self._update(images, real=True)

    def _counted(self, values: dict[str, float], n: int, n_real: int) -> dict[str, float]:
        """Return values with the numbers of generated and real images that they come from."""
        return values | {f"{self.name}_n": float(n), f"{self.name}_n_real": float(n_real)}


class FID(_FeatureDistance[FrechetInceptionDistance]):
    r"""Fréchet distance between Gaussians fitted to features (Heusel et al. 2017, equation 6).

    ``||m - m'||^2 + tr(C + C' - 2 (C C')^(1/2))``. Named ``fid`` with the standard Inception and
    ``fid_<extractor>`` with any other. It is biased upwards, the more the fewer images: compare
    values of equal n only. Logged beside it: ``<name>_n`` generated and ``<name>_n_real`` images.

    Args:
        extractor: Computes the features.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__("fid", extractor)

    @override
    def _build(self, images: Float[Tensor, "n 3 height width"]) -> FrechetInceptionDistance:
        # The number of features may depend on the size of images
        with torch.inference_mode():
            self.extractor.num_features = self.extractor(images[:1]).shape[-1]
        return FrechetInceptionDistance(
            self.extractor, reset_real_features=False, normalize=True, sync_on_compute=False
        )

    @override
    def compute(self) -> dict[str, float]:
        n = n_real = 0
        if self._metric is not None:
            n = int(self._metric.fake_features_num_samples)
            n_real = int(self._metric.real_features_num_samples)
        if self._metric is None or min(n, n_real) < 2:
            raise NothingToMeasure(
                f"{self.name} needs at least 2 generated and 2 real images, got {n} and {n_real}"
            )
        # ||m - m'||^2 + tr(C + C' - 2 (C C')^(1/2)): Heusel et al. 2017, equation 6
        return self._counted({self.name: float(self._metric.compute())}, n, n_real)


class KID(_FeatureDistance[KernelInceptionDistance]):
    """Squared MMD with a cubic kernel between features (Bińkowski et al. 2018, section 3.1).

    Unbiased, so it may be negative. The mean over random subsets is ``kid`` (``kid_<extractor>``)
    and their standard deviation ``<name>_std``; it says how subsets differ, not how runs do.

    Args:
        extractor: Computes the features.
        subsets: Number of random subsets.
        subset_size: Images in each subset, at most the number of real and of generated ones.
        seed: Seed of the subsets; the global random state is left as it is.
    """

    def __init__(
        self, extractor: FeatureExtractor, subsets: int = 50, subset_size: int = 100, seed: int = 0
    ) -> None:
        check_counts(self, subsets=subsets)
        if subset_size < 2:
            raise UserError(f"KID: subset_size must be at least 2, got {subset_size}")
        super().__init__("kid", extractor)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    @override
    def names(self) -> set[str]:
        return super().names() | {f"{self.name}_std"}

    @override
    def _build(self, images: Float[Tensor, "n 3 height width"]) -> KernelInceptionDistance:
        with warnings.catch_warnings():  # that it keeps features in memory is known
            warnings.simplefilter("ignore", UserWarning)
            return KernelInceptionDistance(
                self.extractor,
                subsets=self.subsets,
                subset_size=self.subset_size,
                reset_real_features=False,
                sync_on_compute=False,
            )

    @override
    def compute(self) -> dict[str, float]:
        n = n_real = 0
        if self._metric is not None:
            n = sum(map(len, self._metric.fake_features))
            n_real = sum(map(len, self._metric.real_features))
        if self._metric is None or min(n, n_real) < self.subset_size:
            raise UserError(
                f"{self.name}: subset_size {self.subset_size} must not exceed the number of "
                f"generated ({n}) or of real images ({n_real})"
            )
        # torchmetrics draws the subsets from the global state, which training must find unmoved.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            mean, std = self._metric.compute()
        values = {self.name: float(mean), f"{self.name}_std": float(std)}
        return self._counted(values, n, n_real)
