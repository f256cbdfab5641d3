"""Bits per dimension of densities that are known in closed form."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from world import KnownData, Recaller, evaluate, make_trainer, names_at_test

from callbacks import Likelihood
from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch

DIMS = 3 * 32 * 32
SIGMA = 0.05
FLOOR = 0.5 * math.log(2 * math.pi * math.e * SIGMA**2)


@dataclass(frozen=True, kw_only=True)
class Found:
    log_prob: Tensor
    dims: int
    noise_floor: float


class Dense(Recaller):
    """Its density costs 0.25 bits a dimension more than the noise, plus a bit for each key digit.

    The extra cost depends on the image, so that a mean over batches instead of images is wrong.
    """

    floor = FLOOR

    def log_prob(self, batch: DocumentBatch) -> Found:
        extra = [0.25 + float(d.key[0]) if d.key != "partial" else 0.25 for d in batch.documents]
        nats = -(self.floor + torch.tensor(extra) * math.log(2)) * DIMS
        return Found(log_prob=nats, dims=DIMS, noise_floor=self.floor)


class Grid(Dense):
    """In pixels: uniform over all 256 cells of each dimension, and zero outside."""

    def pixel_log_prob(self, batch: DocumentBatch) -> Tensor:
        edge = 1 + 0.5 / 127.5
        assert batch.images.abs().max() <= edge
        # dequantised values stay in their own cells
        levels = (batch.images + 1) * 127.5
        assert (levels - levels.round()).abs().mean() > 0.2
        return torch.full((len(batch.images),), -DIMS * math.log(2 * edge))


# 24 shapes, three for each leading digit 0..7, and a partial one with no extra cost
EXCESS = 0.25 + 3 * sum(range(8)) / 25


def test_excess_is_the_mean_over_images_in_bits_above_the_floor(tmp_path: Path) -> None:
    first, second = Likelihood(), Likelihood()
    values = evaluate(tmp_path, Dense(), [first])
    assert values["nll_excess_bits_per_dim"] == pytest.approx(EXCESS, rel=1e-5)
    assert values["nll_excess_bits_per_dim_n"] == 25
    assert values.keys() == names_at_test(first)
    module = Dense()
    module.floor += 1e-6  # each sample differs, if by a little
    evaluate(tmp_path, module, [second])
    assert first.sample_results != second.sample_results


def test_every_image_is_kept_by_the_key_of_its_document(tmp_path: Path) -> None:
    callback = Likelihood(dequantised=True)
    values = evaluate(tmp_path, Grid(), [callback])
    kept = {one["item"]: one["values"] for one in callback.sample_results}
    assert kept.keys() == {sample.key for sample in KnownData().samples}
    assert kept["partial"]["test/nll_excess_bits_per_dim"] == pytest.approx(0.25, rel=1e-5)
    for name in ("nll_excess_bits_per_dim", "bits_per_dim_dequantised"):
        assert math.fsum(one[f"test/{name}"] for one in kept.values()) / 25 == pytest.approx(
            values[name], rel=1e-5
        )


class Parts(KnownData):
    """The first fifteen samples are of one part of the data, the ten others of another."""

    def test_dataloader(self):
        batches = list(super().test_dataloader())
        named = [replace(b, part="one" if i < 3 else "other") for i, b in enumerate(batches)]
        return DataLoader(named, batch_size=None)


def test_parts_are_measured_apart(tmp_path: Path) -> None:
    callback = Likelihood(parts=["one", "other"])
    trainer = make_trainer(tmp_path, [callback])
    trainer.test(Dense(), datamodule=Parts(), verbose=False)
    values = {name.removeprefix("test/"): float(v) for name, v in trainer.callback_metrics.items()}
    assert values.keys() == names_at_test(callback)
    name = "nll_excess_bits_per_dim"
    counts = [values[f"{name}_{part}_n"] for part in ("one", "other")]
    assert counts == [15, 10]
    means = [values[f"{name}_{part}"] for part in ("one", "other")]
    assert sum(m * n for m, n in zip(means, counts, strict=True)) / 25 == pytest.approx(EXCESS)
    assert means[0] != pytest.approx(means[1])


def test_uses_what_the_evaluation_step_returned(tmp_path: Path) -> None:
    class Returning(Dense):
        calls = 0

        def log_prob(self, batch: DocumentBatch) -> Found:
            self.calls += 1
            return super().log_prob(batch)

        def test_step(self, batch: DocumentBatch, batch_idx: int) -> dict[str, Found]:
            return {"likelihood": self.log_prob(batch)}

    module = Returning()
    values = evaluate(tmp_path, module, [Likelihood()])
    assert values["nll_excess_bits_per_dim"] == pytest.approx(EXCESS, rel=1e-5)
    assert module.calls == 5


def test_uniform_over_the_grid_costs_eight_bits(tmp_path: Path) -> None:
    likelihood = Likelihood(dequantised=True)
    values = evaluate(tmp_path, Grid(), [likelihood])
    assert values.keys() == names_at_test(likelihood)
    assert values["bits_per_dim_dequantised"] == pytest.approx(8, abs=1e-5)
    assert values["bits_per_dim_dequantised_n"] == 25


def test_without_noise_there_is_no_excess(tmp_path: Path) -> None:
    module = Dense()
    module.floor = -math.inf
    assert evaluate(tmp_path, module, [Likelihood()]) == {}


def test_each_evaluation_starts_anew(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [Likelihood()])
    for _ in range(2):
        trainer.validate(Dense(), datamodule=KnownData(), verbose=False)
        assert trainer.callback_metrics["val/nll_excess_bits_per_dim_n"] == 25


def test_says_what_the_module_lacks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Likelihood needs a module with log_prob\(batch\)"):
        evaluate(tmp_path, Recaller(), [Likelihood()])
    with pytest.raises(UserError, match=r"dequantised: true needs a module with pixel_log_prob"):
        evaluate(tmp_path, Dense(), [Likelihood(dequantised=True)])
