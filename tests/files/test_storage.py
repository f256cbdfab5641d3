"""Files of weights."""

import pytest
import torch
from safetensors.torch import load_file

from pretzel.files.weights import save_tensors


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o700, 0o2775])
def test_who_may_read_the_folder_may_read_the_weights(tmp_path, mode):
    folder = tmp_path / "runs"
    folder.mkdir()
    folder.chmod(mode)
    path = folder / "weights.safetensors"
    save_tensors({"a": torch.arange(3)}, path, {})
    assert path.stat().st_mode & 0o7777 == mode & 0o666
    assert torch.equal(load_file(path)["a"], torch.arange(3))
