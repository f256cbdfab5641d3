"""Bases of callbacks that measure: at every n-th validation of a fit, or on every batch."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from callbacks.protocols import Split
from callbacks.reporting import Stage
from pretzel.ablation.protocols import SampleResult
from pretzel.errors import NothingToMeasure, UserError

_NO_LAWS = (
    "what a callback measures of a whole run is its own; a metric of generated images, a "
    "callbacks.GenerationMetric, has laws"
)


def check_counts(owner: object, **counts: int | None) -> None:
    """Check numbers that a user gave to a part.

    Raises:
        UserError: If one is below 1; None, for all, is right.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{type(owner).__name__}: {name} must be at least 1, got {value}")


class MeasuringCallback(Callback, ABC):
    """A callback that measures, and says at the end of a fit or a test what that has cost.

    Attributes:
        sample_results: Results of the items of the last test, where they are judged one by one.
        sample_digest: Hash of the results of the samples of the last test, where there are others.
        evaluation_seconds: Wall time that it took of the last fit, validation or test.
    """

    evaluation_only: ClassVar[bool] = True
    no_laws: ClassVar[str] = _NO_LAWS
    sample_results: Sequence[SampleResult] = ()
    sample_digest: str | None = None
    evaluation_seconds: float = 0.0
    _began: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.evaluation_seconds += time.perf_counter() - start

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.evaluation_seconds, self._began = 0.0, time.perf_counter()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if own := self.evaluation_seconds:
            share = own / (time.perf_counter() - self._began)
            rank_zero_info(
                f"{type(self).__name__}: {own:.1f} s, {share:.0%} of the {TrainerFn(stage).value}"
            )


class Evaluation(MeasuringCallback):
    """A callback that evaluates; how many validations there were survives a resume.

    Args:
        every_n_validations: Evaluate at every n-th validation of a fit; ``validate`` and ``test``
            always evaluate, the sanity check never.

    Raises:
        UserError: If it is below 1.
    """

    needs_no_model: ClassVar[bool] = False
    """Whether images alone are measured, whoever has made them."""

    def __init__(self, every_n_validations: int) -> None:
        check_counts(self, every_n_validations=every_n_validations)
        self.every_n_validations = every_n_validations
        self._num_validations = 0
        self._measures = True
        self.not_measured: dict[str, str] = {}  # of the last evaluation: by name, why not

    @abstractmethod
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        """Refuse, before anything runs, a module or datamodule that cannot be evaluated so.

        Raises:
            NothingToMeasure: If the data lacks what is measured: that is said, and all runs.
            UserError: If anything else is wrong.
        """

    @abstractmethod
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Evaluate the module as it is; all ranks call it."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            return
        try:
            self.check(trainer, pl_module, "test" if stage == "test" else "val")
            self._measures = True
        except NothingToMeasure as nothing:
            self._measures = False
            self.not_measured = {type(self).__name__: str(nothing)}
            rank_zero_warn(f"{type(self).__name__} measures nothing: {nothing}")

    @override
    def state_dict(self) -> dict[str, int]:
        return {"num_validations": self._num_validations}

    @override
    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._num_validations = state_dict["num_validations"]

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        # validate() by itself counts for nothing: a resume must find the number that fit left
        self._num_validations += trainer.state.fn == "fit"
        is_turn = trainer.state.fn != "fit" or self._num_validations % self.every_n_validations == 0
        if is_turn and self._measures:
            with self.timed():
                self.evaluate(trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._measures:
            with self.timed():
                self.evaluate(trainer, pl_module, "test")


class BatchEvaluation(MeasuringCallback):
    """A callback that follows the batches of validation and test alike."""

    @abstractmethod
    def begin_epoch(self) -> None:
        """Begin a pass over the batches."""

    def begin_batch(self, trainer: Trainer, batch: object) -> None:
        """Prepare for the step on a batch."""
        return

    @abstractmethod
    def end_batch(self, pl_module: LightningModule, outputs: object, batch: object) -> None:
        """Take in what the step on a batch returned."""

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin_epoch()

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        with self.timed():
            self.begin_batch(trainer, batch)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        with self.timed():
            self.end_batch(pl_module, outputs, batch)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
