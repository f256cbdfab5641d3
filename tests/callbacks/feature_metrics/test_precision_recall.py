"""Fidelity and coverage agree with torch-fidelity and with their definitions, block by block."""

import pytest
import torch
from known_features import corner, measure_features, normal
from torch_fidelity.metric_prc import calculate_precision_recall_full

from callbacks import DensityCoverage, PrecisionRecall
from callbacks.feature_metrics import feature_rows, neighbours
from pretzel.errors import NothingToMeasure, UserError


@pytest.mark.parametrize("block", [1024, 8])
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_those_of_torch_fidelity(
    monkeypatch: pytest.MonkeyPatch, block: int, k: int
) -> None:
    for module in (feature_rows, neighbours):
        monkeypatch.setattr(module, "BLOCK", block)
    real, generated = normal(60, 5, 0), normal(45, 5, 1) * 0.8 + 0.5
    values = measure_features(PrecisionRecall(corner(5), k), real, generated)
    expected = calculate_precision_recall_full(generated, real, k)
    assert all(0.1 < value < 1 for value in expected)
    assert (values["precision_corner"], values["recall_corner"]) == pytest.approx(expected)
    assert (values["precision_corner_n"], values["precision_corner_n_real"]) == (45, 60)


@pytest.mark.parametrize("block", [1024, 8])
def test_density_and_coverage_are_their_definitions(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    for module in (feature_rows, neighbours):
        monkeypatch.setattr(module, "BLOCK", block)
    real, generated = normal(40, 3, 0), normal(30, 3, 1) + 0.5
    values = measure_features(DensityCoverage(corner(3), neighbours=5), real, generated)
    radii = [sorted(float((x - y).norm()) for y in real)[5] for x in real]
    inside = torch.tensor(
        [[float((y - x).norm()) <= r for x, r in zip(real, radii, strict=True)] for y in generated]
    )
    assert values["density_corner"] == pytest.approx(float(inside.sum()) / (5 * 30))
    assert values["coverage_corner"] == pytest.approx(float(inside.any(dim=0).double().mean()))


def test_what_each_of_them_sees() -> None:
    real, few = normal(200, 2, 0), normal(200, 2, 1) * 0.05
    narrow = measure_features(PrecisionRecall(corner(2)), real, few)
    assert narrow["precision_corner"] > 0.9
    assert narrow["recall_corner"] < 0.1
    wide = measure_features(PrecisionRecall(corner(2)), few, real)
    assert wide["precision_corner"] < 0.1
    same = measure_features(DensityCoverage(corner(2)), real, normal(200, 2, 2))
    assert same["density_corner"] == pytest.approx(1, abs=0.2)
    assert same["coverage_corner"] > 0.9


def test_too_few_images_and_mistakes() -> None:
    with pytest.raises(NothingToMeasure, match="at least 4 generated and 4 real images, got 3"):
        measure_features(PrecisionRecall(corner(2)), normal(5, 2, 0), normal(3, 2, 0))
    with pytest.raises(UserError, match="DensityCoverage: neighbours must be at least 1, got 0"):
        DensityCoverage(neighbours=0)
