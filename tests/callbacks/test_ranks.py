"""Two processes log what one process logs, on every rank, and none waits for ever."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from test_likelihood import Dense
from world import KnownData, evaluate, make_trainer

from callbacks import (
    FID,
    KID,
    EMAWeightAveraging,
    Generation,
    JudgeFeatures,
    Likelihood,
    SampleGrid,
    ShapeAccuracy,
    VQAAccuracy,
)


class Keep(Callback):
    """Writes down what this rank has logged, and whether its weights are the common ones."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        folder = Path(trainer.default_root_dir)
        torch.save(values, folder / f"rank{trainer.global_rank}.pt")


def all_callbacks() -> list[Callback]:
    metrics = [ShapeAccuracy(), FID(JudgeFeatures()), KID(JudgeFeatures(), 4, 10)]
    return [
        EMAWeightAveraging(0.5),
        Likelihood(),
        # five batches: the ranks' shares are unequal
        Generation(metrics, num_images=18, batch_size=4),
        SampleGrid(num_images=2),
        VQAAccuracy(batch_size=9),
    ]


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
def test_two_ranks_agree_with_one(tmp_path: Path) -> None:
    single = evaluate(tmp_path / "one", Dense(), all_callbacks())
    trainer = make_trainer(
        tmp_path / "two",
        [*all_callbacks(), Keep()],
        devices=2,
        strategy="ddp_fork",
        use_distributed_sampler=True,
    )
    data = KnownData(samples=KnownData().samples[:24])
    one = make_trainer(tmp_path / "same", all_callbacks())
    one.test(Dense(), datamodule=data, verbose=False)
    expected = {name: float(value) for name, value in one.callback_metrics.items()}
    trainer.test(Dense(), datamodule=data, verbose=False)
    ranks = [torch.load(tmp_path / "two" / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    for values in (*ranks, expected):
        assert values.pop("test/seconds_per_image") > 0
    assert ranks[0] == ranks[1] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert expected.keys() == {f"test/{name}" for name in single} - {"test/seconds_per_image"}
    assert (tmp_path / "two" / "samples").is_dir()
