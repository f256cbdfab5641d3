"""Images whose features are known, and metrics that see them."""

import torch
from torch import Tensor, nn

from callbacks import ModuleFeatures
from callbacks.generation_metric import ReferenceMetric

CPU = torch.device("cpu")


class Corner(nn.Module):
    """Its features are the first pixels of the first row: what we put there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, : self.width]


def corner(width: int) -> ModuleFeatures:
    return ModuleFeatures(Corner(width), "corner")


def images_with(features: Tensor) -> Tensor:
    images = torch.zeros(len(features), 3, 1, features.shape[1])
    images[:, 0, 0] = features
    return images


def measure(metric: ReferenceMetric, real: Tensor, generated: Tensor) -> dict[str, float]:
    metric.prepare(CPU)
    with torch.inference_mode():
        metric.reset_real()
        metric.reset()
        for part in real.split(300):
            metric.update_real(part)
        for part in generated.split(300):
            metric.update(part, [""] * len(part))
        return metric.compute()


def measure_features(metric: ReferenceMetric, real: Tensor, generated: Tensor) -> dict[str, float]:
    """Measure features as those of images; the metric has a Corner of their width."""
    return measure(metric, images_with(real), images_with(generated))


def normal(n: int, width: int, seed: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
