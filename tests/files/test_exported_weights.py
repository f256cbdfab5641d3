"""Weights from files, and what tells two of them apart."""

import torch
from safetensors.torch import save_file
from text_encoders import CHANNELS, save_tiny_t5

from pretzel.files.weights import content_hash, read_exported
from pretzel.tarflow import TextEncoder


def test_shapes_are_read_without_the_numbers(tmp_path):
    save_file({"a": torch.ones(2, 3), "b": torch.ones(())}, tmp_path / "x", {"vlm": "tiny:1"})
    state, metadata = read_exported(tmp_path / "x", shapes_only=True)
    assert {name: (value.shape, value.is_meta) for name, value in state.items()} == {
        "a": ((2, 3), True),
        "b": ((), True),
    }
    assert metadata == {"vlm": "tiny:1"}


def test_a_content_hash_depends_on_everything_but_the_order():
    a, b = torch.arange(6.0), torch.zeros(())
    states = [
        {"a": a, "b": b},
        {"a": a, "c": b},
        {"a": a.view(2, 3), "b": b},
        {"a": a.to(torch.bfloat16), "b": b},
        {"a": a.flip(0), "b": b},
        {"a": a},
    ]
    assert len({content_hash(state) for state in states}) == len(states)
    assert content_hash({"b": b, "a": a}) == content_hash(states[0])
    assert content_hash({"a": a.view(2, 3).T.contiguous().T}) == content_hash({"a": a.view(2, 3)})


def test_a_text_encoder_is_known_by_its_weights(tmp_path):
    encoder = save_tiny_t5(tmp_path / "a")
    save_tiny_t5(tmp_path / "same")
    identity = TextEncoder(str(tmp_path / "a"), CHANNELS, length=6).identity
    assert TextEncoder(str(tmp_path / "same"), CHANNELS, length=6).identity == identity
    assert TextEncoder(str(tmp_path / "a"), CHANNELS, length=7).identity != identity
    encoder.shared.weight.data[3] += 1e-3
    encoder.save_pretrained(tmp_path / "same")
    assert TextEncoder(str(tmp_path / "same"), CHANNELS, length=6).identity != identity
