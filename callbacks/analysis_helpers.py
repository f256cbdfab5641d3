"""Helpers of the analyses of a Pretzel: the model, hooks, batches of questions."""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.hooks import RemovableHandle

from callbacks.protocols import HasLikelihood, chosen_samples, evaluation_texts, lacks
from callbacks.reporting import Stage, evenly
from pretzel.latent.generative_model import GenerativeModel
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


def run_hooked(
    module: LightningModule, batch: DocumentBatch, handles: Sequence[RemovableHandle]
) -> None:
    """Run the model over a batch as its likelihood does, for hooks that are removed thereafter."""
    assert isinstance(module, HasLikelihood)
    try:
        module.log_prob(batch)
    finally:
        for handle in handles:
            handle.remove()


def before_text(model: Pretzel, packed: PackedBatch) -> Bool[Tensor, "b l"]:
    """Return where a supervised token of text comes next; begin-of-image is none."""
    targets = packed.targets
    return (targets != IGNORE) & (targets != model.vlm.special.begin_of_image)


def question_batches(
    trainer: Trainer, module: LightningModule, stage: Stage, limit: int | None, batch_size: int
) -> Iterator[DocumentBatch]:
    """Yield this rank's share of the samples that have questions: image, questions, answers.

    Of all samples ``limit`` are taken over all ranks, evenly spread; None takes all.
    """
    usable = [s.key for s in evaluation_texts(trainer, stage, "the analysis") if s.questions]
    spread = evenly(usable, len(usable) if limit is None else limit)
    local = {*spread[trainer.global_rank :: trainer.world_size]}
    samples = iter(chosen_samples(trainer, stage, local, "the analysis"))
    while batch := list(islice(samples, batch_size)):
        documents = tuple(question_document(s.questions, key=s.key) for s in batch)
        images = torch.stack([s.image for s in batch])
        yield DocumentBatch(documents=documents, images=images).to(module.device)
