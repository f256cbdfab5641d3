"""Mistakes in a stage's settings are refused in a sentence, before anything trains."""

from functools import partial
from pathlib import Path

import pytest
from tiny import tiny_module, tiny_pretzel

from pretzel.__main__ import main
from pretzel.errors import UserError
from pretzel.training.text_states import TextStates

ROOT = Path(__file__).parents[2]
BASE = ROOT / "ablations" / "base" / "easy_vqa.yaml"
STAGES = ROOT / "ablations" / "stages"
SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trains": [""]}, "trains: '' must begin the name"),
        ({"trains": ["?"]}, r"trains: '\?' must begin the name"),
        ({"learning_rate_scales": {"deep": -1.0}}, "'deep' must be 0 or positive, got -1.0"),
        ({"learning_rate_scales": {"deep": float("nan")}}, "'deep' must be 0 or positive, got nan"),
        ({"text_states": TextStates(), "trains": ["deep"]}, "text_weight 0.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        tiny_module(**options)


def test_text_states_want_a_row_for_each_document():
    model = tiny_pretzel()
    model.requires_grad_(False)
    model.pack_length = 64
    with pytest.raises(UserError, match=r"one document a row .*pack_length 64"):
        TextStates().check(model)


@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
def test_a_resumed_stage_does_not_need_the_stage_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["-c", str(SHRINK), "--trainer.default_root_dir", str(tmp_path)]
    stage = ["-c", str(BASE), "-c", str(STAGES / "s3.yaml"), *small]
    fit = partial(main, ["fit", *stage, "--trainer.callbacks", "null"])
    assert fit() == 2  # there is no S2
    plain = ["fit", "-c", str(BASE), *small, "--trainer.callbacks", "null"]
    assert main([*plain, "--trainer.enable_checkpointing", "true"]) == 0
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    test = ["test", *stage, "--trainer.callbacks", "null", "--ckpt_path", str(checkpoint)]
    assert main(test) == 0
