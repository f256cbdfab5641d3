"""Files of checkpoints: found where training scripts put them, and never run."""

import pytest
import torch
from importing import SMALL, refused, tensors_of

from pretzel.errors import UserError
from pretzel.interop.checkpoint import read_checkpoint


class Opens:
    """Pickled by what it would run."""

    def __reduce__(self):
        return open, ("ran", "w")


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, capsys, elsewhere):
    path = tmp_path / "code.pt"
    torch.save({"model": tensors_of("T4"), "args": Opens()}, path)
    assert "never run" in refused(capsys, "tarflow", path, *SMALL)
    assert not (elsewhere / "ran").exists()


@pytest.mark.parametrize("name", ["noise.safetensors", "noise.pt", "none.pt"])
def test_what_is_no_checkpoint_is_refused(tmp_path, name):
    if name != "none.pt":
        (tmp_path / name).write_bytes(b"not a checkpoint at all")
    with pytest.raises(UserError, match=name):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("nest", [None, "model", "state_dict", "model_state_dict", "module"])
def test_weights_are_found_where_training_scripts_put_them(tmp_path, nest):
    state = {"module._orig_mod.a.b": torch.ones(2), "module._orig_mod.c": torch.zeros(())}
    torch.save(state if nest is None else {nest: state, "step": 7}, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").keys() == {"a.b", "c"}


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    torch.save({"weights": [torch.ones(1)]}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="must hold a state dict"):
        read_checkpoint(tmp_path / "x.pt")
