"""Every callback of ours says what it logs, what it needs, and what it has cost."""

import importlib
import inspect
import pkgutil
import re
import time
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from world import KnownData, Recaller, make_trainer

import callbacks
from callbacks.evaluation import BatchEvaluation, Evaluation, MeasuringCallback

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"


def concrete():
    for module in pkgutil.walk_packages(callbacks.__path__, "callbacks."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            is_ours = kind.__module__ == module.name and issubclass(kind, Callback)
            if is_ours and not inspect.isabstract(kind) and kind is not MeasuringCallback:
                yield kind


@pytest.mark.parametrize("kind", [*concrete()], ids=lambda kind: kind.__name__)
def test_a_callback_says_what_it_logs_and_needs(kind):
    assert "metric_names" in vars(kind)
    if issubclass(kind, MeasuringCallback) and "logs no metric" not in kind.metric_names.__doc__:
        rows = [
            row for row in METRICS.read_text().splitlines() if f"`callbacks.{kind.__name__}`" in row
        ]
        needs = [
            re.split(r"(?<!\\)\|", row.strip(" |"))[-1].strip() for row in rows if row[0] == "|"
        ]
        assert needs[:1]
        assert needs[0]


class Slow(Evaluation):
    def check(self, trainer, pl_module, split):
        pass

    def evaluate(self, trainer, pl_module, stage):
        time.sleep(0.02)


class Rare(Slow):
    """Has its turn after many validations."""


class SlowBatches(BatchEvaluation):
    def begin_epoch(self):
        pass

    def end_batch(self, pl_module, outputs, batch):
        time.sleep(0.01)


def test_the_cost_is_told_at_the_end(tmp_path, caplog):
    measuring = [Slow(every_n_validations=1), SlowBatches(), Rare(every_n_validations=99)]
    trainer = make_trainer(tmp_path, measuring, max_epochs=1)
    with caplog.at_level("INFO"):
        trainer.fit(Recaller(), datamodule=KnownData())
    assert measuring[0].evaluation_seconds >= 0.02
    assert measuring[1].evaluation_seconds >= 0.05  # five batches
    assert measuring[2].evaluation_seconds == 0
    told = [line for line in caplog.messages if "of the fit" in line]
    assert [re.sub(r"[\d.]+", "0", line) for line in told] == [
        "Slow: 0 s, 0% of the fit", "SlowBatches: 0 s, 0% of the fit",
    ]  # fmt: skip
    trainer.test(Recaller(), datamodule=KnownData(), verbose=False)
    assert measuring[1].evaluation_seconds < 5  # of the test alone
