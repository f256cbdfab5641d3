"""Inception Score is between 1 and the number of classes, by torch-fidelity's formula."""

import math

import pytest
import torch
from known_features import CPU, Corner, images_with, normal
from torch import Tensor
from typing_extensions import override

from callbacks import ImageClassifier, InceptionScore
from pretzel.errors import NothingToMeasure, UserError


class KnownLogits(ImageClassifier):
    """Its logits are what was put into the images."""

    suffix = "_known"

    def __init__(self) -> None:
        super().__init__()
        self.corner = Corner(4)

    @override
    def prepare(self) -> None:
        """Do nothing."""

    @override
    def facts(self) -> dict[str, str]:
        return {"extractor": "known"}

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.corner(images)

    @override
    def logits(self, features: Tensor) -> Tensor:
        return features


def score(logits: Tensor, splits: int = 1) -> dict[str, float]:
    metric = InceptionScore(KnownLogits(), splits)
    metric.prepare(CPU)
    for part in logits.split(7):
        metric.update(images_with(part), [""] * len(part))
    values = metric.compute()
    assert values.keys() == metric.names()
    return values


def test_sure_and_different_answers_reach_the_number_of_classes() -> None:
    sure = score(100 * torch.eye(4).repeat(5, 1))
    assert sure["inception_score_known"] == pytest.approx(4)
    assert sure["inception_score_known_n"] == 20
    for same in (torch.zeros(20, 4), 100 * torch.eye(4)[:1].repeat(20, 1)):
        assert score(same)["inception_score_known"] == pytest.approx(1)


def test_it_is_the_mean_divergence_from_the_mean_answer() -> None:
    logits = normal(50, 4, 0)
    p = logits.double().softmax(dim=1)
    divergence = (p * (p / p.mean(dim=0)).log()).sum(dim=1).mean()
    values = score(logits)
    assert values["inception_score_known"] == pytest.approx(math.exp(divergence), rel=1e-9)
    assert values["inception_score_known_std"] == 0
    assert score(logits, splits=5)["inception_score_known_std"] > 0


def test_too_few_images_and_mistakes() -> None:
    with pytest.raises(NothingToMeasure, match="at least 10 generated images, the number of split"):
        score(normal(9, 4, 0), splits=10)
    with pytest.raises(UserError, match="splits must be at least 1, got 0"):
        InceptionScore(splits=0)
