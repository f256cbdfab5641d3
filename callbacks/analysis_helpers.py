"""Helpers of the analyses of a Pretzel: the model, hooks, batches of questions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.hooks import RemovableHandle

from callbacks.protocols import EvaluationSample, HasLikelihood, evaluation_samples, lacks
from callbacks.reporting import Stage, evenly
from pretzel.flow.generative_model import GenerativeModel
from pretzel.model import Pretzel
from pretzel.sequence.document import DocumentBatch, question_document
from pretzel.sequence.packed_batch import IGNORE, PackedBatch
from pretzel.typing import Bool, Tensor


def analysed_model(module: LightningModule, needed_by: str) -> Pretzel | None:
    """Return the module's model; None for one that is no Pretzel.

    Raises:
        UserError: If the module has no model, or no likelihood to run it with.
    """
    model = getattr(module, "pretzel", None)
    if not isinstance(model, GenerativeModel) or not isinstance(module, HasLikelihood):
        raise lacks(needed_by, "a module with a GenerativeModel pretzel and log_prob", module)
    return model if isinstance(model, Pretzel) else None


@contextmanager
def hooked(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run(module: LightningModule, batch: DocumentBatch) -> None:
    """Run the model over a batch as its likelihood does, with noise keyed by sample."""
    assert isinstance(module, HasLikelihood)
    module.log_prob(batch)  # its value is of no interest: hooks look on


def before_text(model: Pretzel, packed: PackedBatch) -> Bool[Tensor, "b l"]:
    """Return where a supervised token of text comes next; begin-of-image is none."""
    targets = packed.targets
    return (targets != IGNORE) & (targets != model.vlm.special.begin_of_image)


def question_batches(
    trainer: Trainer, module: LightningModule, stage: Stage, limit: int | None, batch_size: int
) -> Iterator[DocumentBatch]:
    """Return this rank's share of the samples that have questions: image, questions, answers.

    Args:
        trainer: The trainer, whose datamodule has evaluation samples.
        module: For the device.
        stage: Names the split.
        limit: Samples over all ranks, evenly spread; None for all.
        batch_size: Samples in a batch.
    """
    usable = [s for s in evaluation_samples(trainer, stage, "the analysis") if s.questions]
    spread = evenly(usable, len(usable) if limit is None else limit)
    of_rank = spread[trainer.global_rank :: trainer.world_size]
    for start in range(0, len(of_rank), batch_size):
        yield _batch(of_rank[start : start + batch_size]).to(module.device)


def _batch(samples: Sequence[EvaluationSample]) -> DocumentBatch:
    return DocumentBatch(
        documents=tuple(question_document(s.questions, key=s.key) for s in samples),
        images=torch.stack([s.image for s in samples]),
    )
