"""Picture sheets of generated images at fixed prompts and fixed noise."""

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from callbacks.evaluation import Evaluation, check_counts
from callbacks.protocols import Split, evaluation_texts, generator_of
from callbacks.reporting import Stage, show_sheet
from pretzel.errors import NothingToMeasure, UserError
from pretzel.media.sheet import sheet


class SampleGrid(Evaluation):
    """Generate images of the same prompts with the same noise at every evaluation.

    Writes ``<log_dir>/samples/step-00001000.png`` (``test-step-...`` when testing) and, where
    TensorBoard runs, the image ``<stage>/samples``. Videos and sounds, of which these show a
    picture, are written to the folder ``step-00001000`` beside it. All ranks wait for rank zero,
    which samples.

    Args:
        prompts: Prompts; None takes the first different captions of the evaluation samples.
        num_images: Number of pictures; prompts are repeated where there are fewer.
        columns: Pictures in a row.
        every_n_validations: Generate at every n-th validation of a fit; tests always do.

    Raises:
        UserError: If a number is below 1, ``prompts`` is empty, or the module cannot sample.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        num_images: int = 24,
        columns: int = 8,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(self, num_images=num_images, columns=columns)
        if prompts == []:
            raise UserError("SampleGrid: prompts must not be empty")
        self.prompts = prompts
        self.num_images = num_images
        self.columns = columns
        self._chosen: list[str] = []

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(prompts=self.prompts, num_images=self.num_images)

    def metric_names(self) -> set[str]:
        """Return nothing: it logs no metric."""
        return set()

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        generator_of(pl_module, "SampleGrid")
        prompts = self.prompts
        if prompts is None:
            prompts = []
            for sample in evaluation_texts(trainer, split, "SampleGrid without prompts"):
                if sample.caption and sample.caption not in prompts:
                    prompts.append(sample.caption)
                if len(prompts) == self.num_images:
                    break
        if not prompts:
            raise NothingToMeasure(
                f"no prompts are given, and the {split} samples have no captions"
            )
        self._chosen = [prompts[i % len(prompts)] for i in range(self.num_images)]

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        folder = trainer.log_dir  # asks all ranks
        if trainer.is_global_zero:
            module = generator_of(pl_module, "SampleGrid")
            medium = module.medium
            outputs = medium.outputs(module.sample(self._chosen, stream_key=("samples",)))
            picture = sheet([*map(medium.picture, outputs)], self._chosen, self.columns)
            path = show_sheet(trainer, folder, stage, "samples", picture)
            if path is not None and medium.suffix != "png":  # a sheet does not show all of them
                for number, output in enumerate(outputs):
                    medium.save(output, path.with_suffix("") / f"{number:05d}.{medium.suffix}")
        trainer.strategy.barrier("SampleGrid")
