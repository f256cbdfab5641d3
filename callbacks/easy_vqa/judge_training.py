"""Train the judge of easy-VQA; ``ablations/stages/judge.yaml`` is its recipe."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, pad
from typing_extensions import override

from callbacks.batch_captions import captions_of
from callbacks.easy_vqa.judge import COLOURS, SHAPES, Judge, read_caption
from pretzel.errors import UserError
from pretzel.files.weights import save_half
from pretzel.rng import stream
from pretzel.sequence.document import DocumentBatch
from pretzel.training.exporting_stage import ExportingStage
from pretzel.training.schedule import one_cycle

IGNORED = -100
"""Class index of an unknown label; cross-entropy leaves it out."""


class JudgeTraining(ExportingStage):
    """Classify colour and shape of captioned images, some of them blurred and noised.

    The augmentation stays small: the judge has to recognise a slightly soft or noisy generated
    shape, and must not learn to see shapes in noise.

    Args:
        seed: Seed of the augmentation; the initial weights follow ``seed_everything``.
        lr: Peak learning rate of AdamW with a one-cycle schedule over the run.
        weight_decay: Decoupled weight decay.
        noise: Largest standard deviation of the added noise, pixels in [-1, 1].
        blur: Probability that an image is blurred by a 3x3 mean.
        export_to: File of weights written when training ends, its hash beside it; None writes only
            Lightning's checkpoints.
    """

    def __init__(
        self,
        seed: int = 0,
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
        noise: float = 0.15,
        blur: float = 0.3,
        export_to: str | None = None,
    ) -> None:
        super().__init__(export_to)
        if not 0.0 <= blur <= 1.0:
            raise UserError(f"JudgeTraining: blur must lie in [0, 1], got {blur}")
        self.save_hyperparameters()
        self.seed, self.lr, self.weight_decay = seed, lr, weight_decay
        self.noise, self.blur = noise, blur
        self.judge = Judge()

    def metric_names(self) -> set[str]:
        """Return the names of the loss and of the accuracy, which tests log as well."""
        return {"train/loss", "val/right"}

    @override
    def export(self, path: Path) -> None:
        save_half(self.judge.state_dict(), path)

    @override
    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        images = self._augment(batch.images)
        losses = [
            cross_entropy(logits, truth, ignore_index=IGNORED, reduction="none")
            for logits, truth in zip(self.judge(images), labels(batch), strict=True)
        ]
        # by images, so that batches of partial captions weigh less
        loss, _ = self.global_mean(torch.stack(losses).sum(0))
        self.log("train/loss", loss.detach(), batch_size=len(images), sync_dist=True)
        return loss

    @override
    def validation_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        truth = torch.stack(labels(batch))
        seen = torch.stack([logits.argmax(-1) for logits in self.judge(batch.images)])
        known = (truth != IGNORED).all(0)
        if known.any():
            right = (seen == truth).all(0)[known].float()
            self.log("val/right", right.mean(), batch_size=len(right), sync_dist=True)

    @override
    def test_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        return one_cycle(self, self.lr, self.weight_decay)

    def _augment(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> Float[Tensor, "m 3 height width"]:
        generator = stream(self.seed, "judge", self.global_step)

        def uniform() -> Tensor:
            return torch.rand(len(images), 1, 1, 1, generator=generator).to(images)

        images = torch.where(uniform() < 0.5, images.flip(-1), images)
        soft = avg_pool2d(pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        images = torch.where(uniform() < self.blur, soft, images)
        # The square keeps most images nearly clean.
        scale = self.noise * uniform() ** 2
        return images + scale * torch.randn(images.shape, generator=generator).to(images)


def labels(batch: DocumentBatch) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Return colour and shape classes of a batch of caption documents.

    Raises:
        UserError: If a document does not consist of one caption and one image.
    """
    appearances = [read_caption(text) for text in captions_of(batch, "JudgeTraining")]
    device = batch.images.device
    colour = [COLOURS.index(a.colour) if a.colour else IGNORED for a in appearances]
    shape = [SHAPES.index(a.shape) if a.shape else IGNORED for a in appearances]
    return torch.tensor(colour, device=device), torch.tensor(shape, device=device)
