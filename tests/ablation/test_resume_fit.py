"""Plain ``pretzel fit``: the same numbers as a cell of a grid, and continued exactly."""

from pathlib import Path

import pytest
import torch
import yaml
from test_resume_pretzel import SMALL, config

from pretzel.runs.cli import RunCLI
from pretzel.runs.step_seeds import SeededSteps

# the runs compared have folders of their own
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")

CHECKPOINTS = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"filename": "{step}", "every_n_train_steps": 2, "save_top_k": -1},
}


def fit(folder: Path, *arguments: str, **model) -> dict:
    """Run the command; return its last checkpoint."""
    values = config(
        folder, SMALL, keep=("EMAWeightAveraging", "Likelihood"), max_steps=6, val_check_interval=3
    )
    checkpoints = CHECKPOINTS["init_args"] | {"dirpath": str(folder / "checkpoints")}
    values["trainer"]["callbacks"].append(CHECKPOINTS | {"init_args": checkpoints})
    values["trainer"]["logger"] = False
    values["model"]["init_args"] |= model
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(values))
    cli = RunCLI(["fit", "-c", str(file), *arguments])
    assert isinstance(cli.trainer.callbacks[0], SeededSteps)
    return torch.load(folder / "checkpoints" / "step=6.ckpt", weights_only=True)


def differing(one: dict, other: dict) -> list[str]:
    return [n for n, value in one.items() if not torch.equal(value, other[n])]


def test_goes_on_as_if_it_had_not_been_interrupted(tmp_path):
    straight = fit(tmp_path / "straight")
    checkpoint = tmp_path / "straight" / "checkpoints" / "step=2.ckpt"
    resumed = fit(tmp_path / "resumed", "--ckpt_path", str(checkpoint))
    assert resumed["global_step"] == straight["global_step"] == 6
    assert differing(straight["state_dict"], resumed["state_dict"]) == []


def test_goes_on_exactly_with_states_of_texts_that_were_computed_beside_others(tmp_path):
    def states(folder: str) -> dict:
        return {
            "text_states": {
                "class_path": "pretzel.training.TextStates",
                "init_args": {"folder": str(tmp_path / folder)},
            },
            "trains": ["shallow?", "deep", "interleaving.text_input?"],
            "text_weight": 0.0,
        }

    straight = fit(tmp_path / "straight", **states("one"))
    checkpoint = tmp_path / "straight" / "checkpoints" / "step=2.ckpt"
    resumed = fit(tmp_path / "resumed", "--ckpt_path", str(checkpoint), **states("two"))
    assert differing(straight["state_dict"], resumed["state_dict"]) == []
