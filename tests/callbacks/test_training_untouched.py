"""Training with all metrics ends with the weights and random states of training without any."""

from pathlib import Path

import torch
from lightning.pytorch import Callback
from test_likelihood import Dense
from torch import Tensor
from world import KnownData, make_trainer

from callbacks import (
    FID,
    KID,
    MMD,
    DensityCoverage,
    Generation,
    InceptionScore,
    JudgeFeatures,
    Likelihood,
    PrecisionRecall,
    SampleGrid,
    ShapeAccuracy,
    VQAAccuracy,
)
from pretzel.rng import global_states, set_global_states
from pretzel.sequence.document import DocumentBatch


class Drops(Dense):
    """Trains with dropout, from the global random state."""

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        shown = torch.nn.functional.dropout(batch.images.mean((2, 3)), training=self.training)
        return self.layer(shown).square().mean()


def trained(folder: Path, callbacks: list[Callback]) -> tuple[dict[str, Tensor], list[float]]:
    torch.manual_seed(0)
    module = Drops()
    settings = {"max_epochs": 2, "val_check_interval": 2}
    make_trainer(folder, callbacks, **settings).fit(module, datamodule=KnownData())
    following = [torch.rand(()).item(), float(torch.randn(()))]
    return module.state_dict(), following


def test_weights_and_random_states_are_the_same(tmp_path: Path) -> None:
    judge = JudgeFeatures()
    metrics = [ShapeAccuracy(), FID(judge), KID(judge, 2, 5), MMD(judge), PrecisionRecall(judge)]
    metrics += [DensityCoverage(judge), InceptionScore(splits=2)]
    measuring = [
        Likelihood(),
        Generation(metrics, num_images=8),
        SampleGrid(num_images=2),
        VQAAccuracy(batch_size=9),
    ]
    before = global_states()
    weights, following = trained(tmp_path / "without", [])
    measured, following_measured = trained(tmp_path / "with", measuring)
    set_global_states(before)
    assert following_measured == following
    assert all(torch.equal(measured[name], value) for name, value in weights.items())
    assert measuring[1].facts["val/fid_judge"]["n"] == 8
