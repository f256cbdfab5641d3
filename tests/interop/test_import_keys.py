"""Every key of a checkpoint is accounted for."""

import json

import pytest
import torch
from importing import (
    SMALL,
    checkpoint,
    four_channels,
    golden,
    imported,
    refused,
    tensors_of,
)
from safetensors import safe_open

from pretzel.errors import UserError
from pretzel.interop.starflow import StarflowOptions, read_starflow
from pretzel.interop.tarflow import read_tarflow

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_the_report_lists_what_is_used_and_what_is_not(tmp_path, capsys):
    path = checkpoint(tmp_path, "S2")
    imported(path, "starflow", "--head_dim", "24", *four_channels(tmp_path))
    message = capsys.readouterr().out
    unused = {line.split()[1][:-1] for line in message.splitlines() if line.startswith("  unused")}
    used = {line.split()[1] for line in message.splitlines() if line.startswith("  used")}
    assert used | unused == set(tensors_of("S2"))
    with safe_open(golden("S2"), "pt") as file:
        buffers = json.loads(file.metadata()["golden"])["buffer_names"]
    assert unused == {*buffers, "feat_rope.freqs_sin"}
    assert "  used    blocks.0.sos_embed -> blocks.0.start.token" in message


KEY = "blocks.1.attn_blocks.0.mlp.main.0.weight"
NORM = "blocks.1.attn_blocks.0.attention.norm.bias"
REFUSED = {
    "missing where sizes are told": (
        {"blocks.0.pos_embed": None},
        ["blocks.0.pos_embed", "(16, 32)"],
    ),
    "missing where options are told": ({NORM: None}, [NORM, "(32,)", "found no key"]),
    "shape where sizes are told": (
        {"blocks.0.proj_in.weight": torch.zeros(32, 11)},
        ["blocks.0.proj_in.weight", "(32, 12)", "(32, 11)"],
    ),
    "missing": ({KEY: None}, [KEY, "(128, 32)", "found no key"]),
    "unknown": ({"extra.key": torch.zeros(2, 3)}, ["extra.key", "no such key", "(2, 3)"]),
    "shape": ({KEY: torch.zeros(5, 32)}, [KEY, "(128, 32)", "(5, 32)"]),
    "a scaled prior": ({"var": torch.full((16, 12), 2.0)}, ["var", "1 throughout", "2"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_sentence(tmp_path, capsys, case):
    changes, words = REFUSED[case]
    message = refused(capsys, "tarflow", checkpoint(tmp_path, "T4", **changes), *SMALL)
    assert all(word in message for word in (*words, "T4.safetensors"))


def test_a_block_that_is_missing_is_missed():
    tensors = {k: v for k, v in tensors_of("T4").items() if not k.startswith("blocks.2.")}
    with pytest.raises(UserError, match=r"blocks\.2\.proj_in\.weight"):
        read_tarflow(tensors, head_dim=16)


def test_learned_positions_do_not_go_with_another_grid():
    with pytest.raises(UserError, match=r"positions\.vectors"):
        read_tarflow(tensors_of("T4"), head_dim=16).stack((4, 5))


def test_a_denoiser_beside_the_flow_is_named_and_left():
    tensors = tensors_of("S8") | {"learnable_self_denoiser.proj_in.weight": torch.zeros(2, 3)}
    report = read_starflow(tensors, StarflowOptions(head_dim=16)).report
    assert "not read" in report.unused["learnable_self_denoiser.proj_in.weight"]
