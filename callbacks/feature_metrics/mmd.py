"""MMD with a Gaussian kernel between generated and real images."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from callbacks.feature_extractors import FeatureExtractor
from callbacks.feature_metrics.base import FeatureMetric
from callbacks.feature_metrics.feature_rows import FeatureRows
from callbacks.feature_metrics.kernels import squared_mmd
from pretzel.errors import UserError

SCALE = 1000
"""The factor of CMMD, which makes its values readable."""


class MMD(FeatureMetric[FeatureRows]):
    r"""Squared MMD with a Gaussian kernel between features of norm 1, times 1,000.

    The form of CMMD (Jayasumana et al. 2024, arXiv 2401.09603): ``k(x, y) = exp(-|x - y|^2 / (2
    sigma^2))``. Of image embeddings of CLIP ViT-L/14 at 336 pixels, by a
    :class:`callbacks.ModuleFeatures`, it is CMMD. Its code takes means over all pairs (the
    V-statistic), which is above zero of equal distributions too; its equation is unbiased. Named
    ``mmd_<extractor>``.

    Args:
        extractor: Computes the features; None for EfficientNet-Lite0's, ``mmd_efflite0``.
        sigma: Width of the kernel.
        unbiased: Leave out the pairs of an image with itself.

    Raises:
        UserError: If sigma is not positive.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | None = None,
        sigma: float = 10.0,
        unbiased: bool = False,
    ) -> None:
        if sigma <= 0:
            raise UserError(f"MMD: sigma must be positive, got {sigma}")
        super().__init__(["mmd"], extractor, FeatureRows)
        self.sigma, self.unbiased = sigma, unbiased

    @override
    def settings(self) -> dict[str, Any]:
        return {"sigma": self.sigma, "unbiased": self.unbiased}

    @override
    def expected_of_halves(self, features: Float[Tensor, "n f"]) -> float:
        if self.unbiased:
            return 0.0
        rows = normalize(features.double(), dim=1)
        kernel = torch.exp(-torch.cdist(rows, rows).square() / (2 * self.sigma**2))
        n = len(rows)
        between = (kernel.sum() - kernel.trace()) / (n * (n - 1))
        return float(SCALE * 2 * (1 - between) / (n // 2))

    @override
    def measure(self, generated: FeatureRows, real: FeatureRows) -> list[float]:
        self.require(2)

        def kernel_less_one(a: Tensor, b: Tensor) -> Tensor:
            # The ones cancel, and take six digits with them where sigma is much above distances
            cosine = normalize(a, dim=1) @ normalize(b, dim=1).T
            return torch.expm1((cosine - 1) / self.sigma**2)

        mmd = squared_mmd(
            generated.rows,
            real.rows,
            kernel_less_one,
            unbiased=self.unbiased,
            device=self._device,
        )
        return [SCALE * mmd]
