"""What evaluations share that let a model draw captions of easy-VQA and judge the drawings."""

from abc import ABC, abstractmethod
from typing import ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from callbacks.drawing_questions import drawer_of
from callbacks.easy_vqa.judge import Appearance, Judge, load_judge, read_caption
from callbacks.evaluation import Evaluation
from callbacks.protocols import EvaluationSample, evaluation_samples, split_of_stage
from callbacks.reporting import Stage
from pretzel.errors import UserError


class JudgedDrawings(Evaluation, ABC):
    """An evaluation of drawings by the shipped judge, of a module that draws and answers.

    Attributes:
        names: What a caption must name to be used, for messages.
    """

    names: ClassVar[str]

    def __init__(self, every_n_validations: int) -> None:
        super().__init__(every_n_validations)
        self._judge: Judge | None = None

    @staticmethod
    @abstractmethod
    def can_be_judged(caption: Appearance) -> bool:
        """Say whether drawings of a caption can be judged."""

    @property
    def judge(self) -> Judge:
        """The judge."""
        assert self._judge is not None, "setup() comes first"
        return self._judge

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            return
        owner = type(self).__name__
        if drawer_of(pl_module, owner) is None:
            rank_zero_info(f"{owner}: not applicable, the module has no image-to-text direction")
            return
        split = split_of_stage(stage)
        samples = evaluation_samples(trainer, split, owner)
        if not any(self.can_be_judged(read_caption(sample.caption)) for sample in samples):
            raise UserError(
                f"{owner} needs captions that name {self.names} of easy-VQA, but the {split} "
                "samples have none"
            )
        if self._judge is None:
            self._judge = load_judge()

    def spread(self, trainer: Trainer, stage: Stage, number: int | None) -> list[EvaluationSample]:
        """Return so many samples, spread evenly over those that can be judged; None for all."""
        usable = [
            sample
            for sample in evaluation_samples(trainer, stage, type(self).__name__)
            if self.can_be_judged(read_caption(sample.caption))
        ]
        count = min(number or len(usable), len(usable))
        return [usable[i * len(usable) // count] for i in range(count)]
