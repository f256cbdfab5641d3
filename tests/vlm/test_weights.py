import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pretzel.errors import UserError
from pretzel.vlm.tiny import TinyVLM
from pretzel.vlm.tiny.stream import SHIPPED
from pretzel.vlm.tiny.weights import save_weights


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for file in (SHIPPED, SHIPPED.with_name(SHIPPED.name + ".sha256")):
        shutil.copy(file, tmp_path)
    return tmp_path / SHIPPED.name


def test_shipped_weights_have_their_hash_and_are_small(shipped):
    digest = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert digest in shipped.identity
    assert SHIPPED.stat().st_size < 2_000_000


def test_a_copy_is_the_same_model(copied, shipped):
    assert TinyVLM(str(copied)).identity == shipped.identity


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path, shipped):
    path = tmp_path / "again.safetensors"
    save_weights(path, shipped.network, shipped.tokenizer)
    assert path.read_bytes() == SHIPPED.read_bytes()


def test_changed_weights_are_refused(copied):
    content = bytearray(copied.read_bytes())
    content[-1] ^= 1
    copied.write_bytes(content)
    with pytest.raises(UserError, match=r"easy_vqa\.safetensors has sha256 .* but .* says"):
        TinyVLM(str(copied))


def test_a_missing_file_is_named(copied):
    copied.unlink()
    with pytest.raises(UserError, match=f"no file {copied}"):
        TinyVLM(str(copied))


def test_only_the_shipped_file_needs_a_hash_beside_it(copied, shipped, monkeypatch):
    missing = copied.with_name(copied.name + ".sha256")
    missing.unlink()
    assert TinyVLM(str(copied)).identity == shipped.identity  # as a stage of a grid exports it
    monkeypatch.setattr("pretzel.vlm.tiny.stream.SHIPPED", copied)
    with pytest.raises(UserError, match=f"no file {missing}"):
        TinyVLM()


def test_weights_of_something_else_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(digest)
    with pytest.raises(UserError, match="must hold a tiny vision-language model"):
        TinyVLM(str(path))


def test_a_file_that_is_not_safetensors_is_refused(tmp_path):
    path = tmp_path / "text.safetensors"
    path.write_text("not weights")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(digest)
    with pytest.raises(UserError, match="is not a safetensors file"):
        TinyVLM(str(path))
