"""Likelihoods of a module that models some images of a batch only."""

from pathlib import Path

import pytest
import torch
from test_likelihood import DIMS, Found, Grid
from torch import Tensor
from world import evaluate

from callbacks import Likelihood
from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch


class Some(Grid):
    """It models every image but the first of a batch, of five images in all."""

    def log_prob(self, batch: DocumentBatch) -> Found:
        actual = super().log_prob(batch)
        return Found(log_prob=actual.log_prob[1:], dims=DIMS, noise_floor=self.floor)

    def pixel_log_prob(self, batch: DocumentBatch) -> Tensor:
        return super().pixel_log_prob(batch)[1:]


def test_means_are_over_the_images_that_are_modelled(tmp_path: Path) -> None:
    values = evaluate(tmp_path, Some(), [Likelihood(dequantised=True)])
    assert values["nll_excess_bits_per_dim_n"] == 20
    assert values["bits_per_dim_dequantised"] == pytest.approx(8, abs=1e-5)
    assert values["bits_per_dim_dequantised_n"] == 20


def test_where_nothing_is_modelled_nothing_is_logged(tmp_path: Path) -> None:
    class Nothing(Some):
        def log_prob(self, batch: DocumentBatch) -> Found:
            return Found(log_prob=torch.zeros(0), dims=DIMS, noise_floor=self.floor)

        def pixel_log_prob(self, batch: DocumentBatch) -> Tensor:
            return torch.zeros(0)

    assert evaluate(tmp_path, Nothing(), [Likelihood(dequantised=True)]) == {}


def test_more_likelihoods_than_images_are_refused(tmp_path: Path) -> None:
    class Many(Some):
        def pixel_log_prob(self, batch: DocumentBatch) -> Tensor:
            return torch.zeros(len(batch.images) + 1)

    with pytest.raises(UserError, match="at most one value an image: got 6 for 5"):
        evaluate(tmp_path, Many(), [Likelihood(dequantised=True)])
