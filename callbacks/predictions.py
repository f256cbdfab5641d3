"""Writes what `pretzel predict` generates."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor
from typing_extensions import override

from callbacks.features import to_uint8
from pretzel.sequence import DocumentBatch


class PredictionWriter(BasePredictionWriter):
    """Write each predicted image as PNG, and its prompt beside it.

    Files are ``<folder>/<key>.png`` and one line of ``<folder>/prompts-rank<k>.jsonl`` for each.

    Args:
        folder: Where to; ``<log_dir>/predictions`` if not given.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        assert isinstance(batch, DocumentBatch)
        assert isinstance(prediction, Tensor)
        log_dir = trainer.log_dir or trainer.default_root_dir
        folder = Path(self.folder) if self.folder else Path(log_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = to_uint8(prediction).permute(0, 2, 3, 1).cpu().numpy()
        with (folder / f"prompts-rank{trainer.global_rank}.jsonl").open("a") as lines:
            for document, picture in zip(batch.documents, pixels, strict=True):
                name = document.key.replace("/", "_")
                Image.fromarray(picture).save(folder / f"{name}.png")
                lines.write(json.dumps({"key": document.key, "prompt": document.text}) + "\n")
