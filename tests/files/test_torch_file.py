"""Files of torch.save: nothing in them is run, and damage is found wherever it is."""

import contextlib
import pickle
import zipfile

import pytest
import torch

from pretzel.errors import UserError
from pretzel.files.torch_file import read_torch
from pretzel.files.weights import read_checkpoint, read_exported, save_exported
from pretzel.runs.atomic_checkpoints import AtomicCheckpointIO

STATE = {"a": torch.arange(40.0), "b": torch.tensor([1, 2])}


class Runs:
    """Pickled by what it would run."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def flipped(path, places):
    """Yield, and leave in the file, its content with one byte altered, for each place."""
    whole = path.read_bytes()
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        yield place
    path.write_bytes(whole)


def equal(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[n], STATE[n]) for n in STATE)


def test_an_altered_byte_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": STATE, "step": 3}, path)
    unnoticed, content = 0, path.read_bytes()
    for _ in flipped(path, range(0, len(content), 3)):
        try:
            checkpoint = read_checkpoint(path)
        except UserError:
            continue
        unnoticed += 1
        assert equal(checkpoint["state_dict"])
        assert checkpoint["step"] == 3
    assert unnoticed < len(content) / 3 / 2  # what fills up to the alignment, dates and the like
    assert equal(read_checkpoint(path)["state_dict"])


def test_an_altered_byte_of_exported_weights_is_found(tmp_path):
    path = tmp_path / "x.safetensors"
    save_exported(STATE, path, {"vlm": "tiny:1"})
    for _ in flipped(path, range(0, len(path.read_bytes()), 3)):
        with contextlib.suppress(UserError):
            state, metadata = read_exported(path)
            assert equal(state)  # the name of the hash is altered, and nothing else
            assert metadata.items() > {"vlm": "tiny:1"}.items()
    state, metadata = read_exported(path)
    assert equal(state)
    assert metadata == {"vlm": "tiny:1"}


def test_a_damaged_checkpoint_is_not_resumed_from_whatever_named_it(tmp_path):
    path = tmp_path / "last.ckpt"  # as --ckpt_path last finds it
    AtomicCheckpointIO().save_checkpoint({"state_dict": STATE}, path)
    assert equal(AtomicCheckpointIO().load_checkpoint(path, weights_only=True)["state_dict"])
    place = path.read_bytes().index(STATE["a"].numpy().tobytes())
    for _ in flipped(path, [place]):
        with pytest.raises(UserError, match=r"last\.ckpt: damaged: archive/data/0 in it"):
            AtomicCheckpointIO().load_checkpoint(path, weights_only=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1], "a checkpoint must hold a state_dict"),
        ({"state_dict": [torch.ones(1)]}, "must hold tensors by name, got a list$"),
        ({"state_dict": {"a": torch.ones(1), "b": "text"}}, "by name, got a str as b"),
        ({"state_dict": {}, "x": Runs(print, "ran")}, r"it names print, and code in a"),
        ({"state_dict": {}, "x": Runs(pickle.loads, b"")}, "it names pickle.loads"),
    ],
)
def test_what_is_no_checkpoint_is_refused_without_advice(tmp_path, capsys, content, expected):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=expected) as refused:
        read_checkpoint(tmp_path / "x.ckpt")
    shown = "".join(map(str, (refused.value, refused.value.__cause__)))
    assert not any(word in shown for word in ("trust", "weights_only", "add_safe", "\n"))
    assert "ran" not in capsys.readouterr().out


def test_torchs_advice_is_not_repeated_of_a_remote_checkpoint(tmp_path):
    path = f"file://{tmp_path}/x.ckpt"
    torch.save({"state_dict": {}, "x": Runs(print, "ran")}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt: .*it names print, and code in a") as refused:
        AtomicCheckpointIO().load_checkpoint(path, weights_only=True)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("text", ["", "hello\n", "80", "(lp0\n.", "\x80\x02}q\x00."])
def test_a_text_file_is_refused_in_a_sentence(tmp_path, text):
    (tmp_path / "x.txt").write_text(text, encoding="latin1")
    with pytest.raises(UserError, match=r"x\.txt: not a weights-only checkpoint \(.+\)$"):
        read_torch(tmp_path / "x.txt")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**7))
    with pytest.raises(UserError, match="it is compressed"):
        read_torch(tmp_path / "x.pt")
