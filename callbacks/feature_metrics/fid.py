"""FID between generated and real images."""

from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from callbacks.feature_extractors import FeatureExtractor
from callbacks.feature_metrics.base import FeatureMetric
from callbacks.feature_metrics.frechet import Moments, frechet_distance


class FID(FeatureMetric[Moments]):
    r"""Fréchet distance between Gaussians fitted to features (Heusel et al. 2017, equation 6).

    ``||m - m'||^2 + tr(C + C' - 2 (C C')^(1/2))``. Named ``fid`` with the standard Inception and
    ``fid_<extractor>`` with any other. It is biased upwards, the more the fewer images: compare
    values of equal n only. Logged beside it: ``<name>_n`` generated and ``<name>_n_real`` images.

    Args:
        extractor: Computes the features; None for EfficientNet-Lite0's, ``fid_efflite0``.
    """

    def __init__(self, extractor: FeatureExtractor | None = None) -> None:
        super().__init__(["fid"], extractor, Moments)
        self._has_said = False

    @override
    def measure(self, generated: Moments, real: Moments) -> list[float]:
        self.require(2)
        num_features = len(real.mean)
        n = min(len(generated), len(real))
        if n <= num_features and not self._has_said:
            self._has_said = True
            rank_zero_info(
                f"{self.name}: {len(generated)} generated and {len(real)} real images do not "
                f"determine a covariance of {num_features} features; the value is biased upwards "
                "and means something only beside others of the same numbers of images. "
                "callbacks.KID is unbiased at any number"
            )
        return [frechet_distance(generated, real, self._device)]
