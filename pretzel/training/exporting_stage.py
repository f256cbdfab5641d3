"""Base of the stages that end with one file of weights, for a frozen part of the model."""

import os
from abc import ABC, abstractmethod
from pathlib import Path

from safetensors import SafetensorError

from pretzel.errors import UserError
from pretzel.training.global_batch import GlobalBatchModule


class ExportingStage(GlobalBatchModule, ABC):
    """A stage that exports weights to a file, if any, when training ends."""

    def __init__(self, export_to: str | None) -> None:
        super().__init__()
        self.export_to = export_to

    @abstractmethod
    def export(self, path: Path) -> object:
        """Write the weights to a file."""

    @property
    def export_path(self) -> Path | None:
        """File that this process writes when training ends, if any."""
        is_trial = bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]
        if self.export_to is None or is_trial or not self.trainer.is_global_zero:
            return None
        return Path(self.export_to)

    def setup(self, stage: str) -> None:
        """Raise a UserError before anything trains if the export cannot be written."""
        if stage == "fit" and self.export_to is not None:
            self._check_export(Path(self.export_to).absolute())
        super().setup(stage)

    def _check_export(self, path: Path) -> None:
        folder = next(parent for parent in path.parents if parent.exists())
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UserError(f"export_to must name a file that can be written, got {self.export_to}")

    def on_fit_end(self) -> None:
        """Write the weights where ``export_to`` says.

        Raises:
            UserError: If they cannot be written; the run's checkpoint holds what was trained.
        """
        if (path := self.export_path) is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.export(path)
            except (OSError, SafetensorError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise UserError(
                    f"export_to: {path} cannot be written ({reason}); the run's checkpoint holds "
                    "what was trained"
                ) from error
