"""Writes the images that `pretzel predict` generates."""

import json
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from callbacks.protocols import generator_of
from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch


class PredictionWriter(Callback):
    """Write each predicted image (PNG), video (WebP) or sound (WAV), and its prompt beside it.

    Files are ``<folder>/<key>.png`` or the like, and one line of
    ``<folder>/prompts-rank<k>.jsonl`` for each. Of a document with several images, such as an edit,
    the last one is predicted: ``prompt`` is the text before it, and the images before it are
    written too, ``<key>.given-0.png`` and so on, which ``given`` names.

    Args:
        folder: Where to; ``<log_dir>/predictions`` if not given.

    Raises:
        UserError: If the folder cannot be made, before anything is generated.
    """

    evaluation_only: ClassVar[bool] = True

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self._folder = Path()

    def metric_names(self) -> set[str]:
        """Return nothing: it logs no metric."""
        return set()

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # log_dir is an exchange of all ranks; of batches some may have fewer than others
        log_dir = trainer.log_dir or trainer.default_root_dir
        self._folder = Path(self.folder) if self.folder else Path(log_dir) / "predictions"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"PredictionWriter: folder must be one that can be written, got {self._folder} "
                f"({error.strerror})"
            ) from error

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        assert isinstance(batch, DocumentBatch)
        assert isinstance(outputs, Tensor)
        medium = generator_of(pl_module, "PredictionWriter").medium
        with (self._folder / f"prompts-rank{trainer.global_rank}.jsonl").open("a") as lines:
            shown = iter(batch.images)
            for document, output in zip(batch.documents, medium.outputs(outputs), strict=True):
                name = document.key.replace("/", "_")
                medium.save(output, self._folder / f"{name}.{medium.suffix}")
                line: dict[str, Any] = {"key": document.key, "prompt": document.prompt}
                own = list(islice(shown, document.num_images))[:-1]
                if own:
                    line["given"] = [f"{name}.given-{i}.{medium.suffix}" for i in range(len(own))]
                    for file, given in zip(
                        line["given"], medium.outputs(torch.stack(own)), strict=True
                    ):
                        medium.save(given, self._folder / file)
                lines.write(json.dumps(line) + "\n")
