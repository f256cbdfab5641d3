"""Features of EfficientNet-Lite0, whose ImageNet weights are installed with Pretzel."""

from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from callbacks.feature_extractors import ImageClassifier, fingerprint
from pretzel.latent.features.efficientnet_lite import (
    at_a_time,
    folded,
    network_input,
    pretrained_network,
)

SIZE = 224
"""Side of the images that the network was trained on, in pixels."""


class EfficientNetFeatures(ImageClassifier):
    """The 1,280 pooled features of EfficientNet-Lite0, and its logits of ImageNet's 1,000 classes.

    Nothing is downloaded: the weights are a package. Metrics are named ``..._efflite0``.
    """

    suffix = "_efflite0"
    file_names = ("efficientnet-lite0", "pooled")

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = None

    @override
    def prepare(self) -> None:
        if self.network is None:
            network = pretrained_network()
            self._weights = fingerprint(network)
            self.network = folded(network)

    @override
    def facts(self) -> dict[str, Any]:
        self.prepare()
        return {
            "extractor": "EfficientNet-Lite0",
            "weights": self._weights,
            "resize": f"bilinear to {SIZE}x{SIZE}",
            "antialias": True,
        }

    @override
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        features = []
        for part in at_a_time(images):
            x = network_input(part, SIZE)
            features.append(self.network.extract_features(x).mean(dim=(2, 3)))
        return torch.cat(features)

    @override
    def logits(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n classes"]:
        return self.network._fc(features)  # type: ignore[no-any-return]


@cache
def shared_efficientnet() -> EfficientNetFeatures:
    """Return the extractor of all metrics that name none: they share each batch's features."""
    return EfficientNetFeatures()
