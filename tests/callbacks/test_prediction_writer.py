"""Where predictions go, and what is said when they cannot."""

from pathlib import Path

import pytest
from lightning.pytorch import LightningModule, Trainer

from callbacks import PredictionWriter
from pretzel.errors import UserError


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_generated(tmp_path: Path):
    (tmp_path / "file").write_text("")
    writer = PredictionWriter(folder=str(tmp_path / "file" / "pictures"))
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    with pytest.raises(UserError, match=r"folder must be one that can be written.*Not a directory"):
        writer.on_predict_start(trainer, LightningModule())
