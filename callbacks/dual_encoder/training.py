"""Train the dual encoder; ``ablations/stages/dual_encoder.yaml`` is its recipe."""

from pathlib import Path

import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from typing_extensions import override

from callbacks.batch_captions import captions_of
from callbacks.caption_retrieval import retrieval
from callbacks.dual_encoder.network import DualEncoder
from pretzel.files.weights import save_half
from pretzel.latent.features.cache import FeatureCache
from pretzel.sequence.document import DocumentBatch
from pretzel.training.exporting_stage import ExportingStage
from pretzel.training.schedule import one_cycle

_MEASURES = ("recall1", "recall5", "rank")
_DIRECTIONS = ("to_text", "from_text")


class DualEncoderTraining(ExportingStage):
    """Find the caption of an image among those of its batch, and the image of a caption.

    The loss is the symmetric cross-entropy of CLIP (Radford et al. 2021, figure 3); images of equal
    captions share the probability. At validations and tests all images are retrieved by all
    captions and the other way round: ``<stage>/retrieval_to_text_recall1``, ``..._recall5`` and
    ``..._rank``, ``retrieval_from_text_...``, as of :class:`callbacks.CaptionRetrieval`, and
    ``retrieval_n`` images. Images are not augmented: the features of each are computed once.

    Args:
        lr: Peak learning rate of AdamW with a one-cycle schedule over the run.
        weight_decay: Decoupled weight decay.
        export_to: File of weights written when training ends, its hash beside it; None writes only
            Lightning's checkpoints.
    """

    def __init__(
        self, lr: float = 2e-3, weight_decay: float = 0.1, export_to: str | None = None
    ) -> None:
        super().__init__(export_to)
        self.save_hyperparameters()
        self.lr, self.weight_decay = lr, weight_decay
        self.encoder = DualEncoder()
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # of 1/0.07, where CLIP's begins
        self._look = FeatureCache(self.encoder.features, 1024)
        self._seen: list[tuple[Float[Tensor, "n d"], list[str]]] = []

    def metric_names(self) -> set[str]:
        """Return the names of the loss and of the measures of retrieval."""
        measures = [f"{d}_{m}" for d in _DIRECTIONS for m in _MEASURES]
        names = [f"{s}/retrieval_{m}" for s in ("val", "test") for m in (*measures, "n")]
        return {"train/loss", *names}

    @override
    def export(self, path: Path) -> None:
        save_half(self.encoder.state_dict(), path)

    @override
    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        captions = captions_of(batch, "DualEncoderTraining")
        images = self.encoder.embed_features(self._look(batch.images))
        texts = self.encoder.embed_texts(captions)
        logits = self.log_scale.clamp(max=4.6).exp() * images @ texts.T
        same = torch.tensor([[a == b for b in captions] for a in captions], device=logits.device)
        target = same / same.sum(dim=1, keepdim=True)  # symmetric: rows and columns sum to 1
        losses = -(target * (log_softmax(logits, 0) + log_softmax(logits, 1))).sum(dim=1) / 2
        loss, _ = self.global_mean(losses)
        self.log("train/loss", loss.detach(), batch_size=len(captions), sync_dist=True)
        return loss

    @override
    def on_validation_epoch_start(self) -> None:
        self._seen = []

    @override
    def validation_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        images = self.encoder.embed_features(self._look(batch.images))
        self._seen.append((images.cpu(), captions_of(batch, "DualEncoderTraining")))

    @override
    def on_validation_epoch_end(self) -> None:
        self._retrieve("val")

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    @override
    def on_test_epoch_end(self) -> None:
        self._retrieve("test")

    def _retrieve(self, stage: str) -> None:
        captions = [caption for _, own in self._seen for caption in own]
        candidates = sorted(set(captions))
        if len(candidates) < 2:
            return
        texts = self.encoder.embed_texts(candidates).cpu()
        similarity = torch.cat([images for images, _ in self._seen]) @ texts.T
        right = torch.tensor([[own == one for one in candidates] for own in captions])
        for direction, pair in zip(
            _DIRECTIONS, ((similarity, right), (similarity.T, right.T)), strict=True
        ):
            for measure, value in retrieval(*pair).items():
                self.log(f"{stage}/retrieval_{direction}_{measure}", value, sync_dist=True)
        self.log(f"{stage}/retrieval_n", float(len(captions)), sync_dist=True)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        return one_cycle(self, self.lr, self.weight_decay)
