"""KID between generated and real images."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from callbacks.evaluation import check_counts
from callbacks.feature_extractors import FeatureExtractor
from callbacks.feature_metrics.base import FeatureMetric
from callbacks.feature_metrics.feature_rows import FeatureRows
from callbacks.feature_metrics.kernels import squared_mmd
from pretzel.errors import UserError


class KID(FeatureMetric[FeatureRows]):
    """Squared MMD with a cubic kernel between features (Bińkowski et al. 2018, section 3.1).

    Unbiased, so it may be negative. The mean over random subsets is ``kid`` (``kid_<extractor>``)
    and their standard deviation ``kid_std``; it says how subsets differ, not how runs do.

    Args:
        extractor: Computes the features; None for EfficientNet-Lite0's, ``kid_efflite0``.
        subsets: Number of random subsets.
        subset_size: Images in each subset, at most the number of real and of generated ones.
        seed: Seed of the subsets; the global random state is left as it is.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | None = None,
        subsets: int = 50,
        subset_size: int = 100,
        seed: int = 0,
    ) -> None:
        check_counts(self, subsets=subsets)
        if subset_size < 2:
            raise UserError(f"KID: subset_size must be at least 2, got {subset_size}")
        super().__init__(["kid"], extractor, FeatureRows)
        self.values = (self.name, f"{self.name}_std")  # the extractor's name comes before it
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    @override
    def settings(self) -> dict[str, Any]:
        return {"subset_size": self.subset_size, "subsets": self.subsets}

    @override
    def expected_of_halves(self, features: Float[Tensor, "n f"]) -> float:
        return 0.0

    @override
    def measure(self, generated: FeatureRows, real: FeatureRows) -> list[float]:
        self.require(self.subset_size, "subset_size")
        generator = torch.Generator().manual_seed(self.seed)
        values = []
        for _ in range(self.subsets):
            of_real, of_generated = (  # in the order of torchmetrics, which draws the same subsets
                x.rows[torch.randperm(len(x), generator=generator)[: self.subset_size]]
                for x in (real, generated)
            )
            mmd = squared_mmd(of_real, of_generated, _cubic, unbiased=True, device=self._device)
            values.append(mmd)
        all_values = torch.tensor(values, dtype=torch.float64)
        return [float(all_values.mean()), float(all_values.std(unbiased=False))]


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3
