"""What the published code gives, our blocks give with its weights.

Every file of golden vectors in ``$PRETZEL_GOLDEN`` (``tests/golden``) is run, call by call, in
float64 and float32. A file or a call that cannot be run is a failure.
"""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from golden import FOLDER, Case, calls, files
from safetensors import safe_open
from safetensors.torch import load_file, save_file

RUNS = [(path, call) for path in files() for call in calls(path) or [None]]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
OURS = Path(__file__).parents[1] / "golden"


@lru_cache(maxsize=2)
def case(path, dtype):
    return Case(path, dtype)


def check(golden, call):
    """Make a call and compare everything that the published code gave."""
    found = golden.run(call)
    outputs = golden.call(call)["outputs"]
    assert outputs, f"{golden.path}: {call} has no outputs to compare with"
    for key in outputs:
        name = key.removeprefix(f"out.{call}.")
        assert name in found, f"{golden.path}: {call} gives no {name}, only {sorted(found)}"
        expected = golden.expected(key)
        assert found[name].shape == expected.shape, (key, found[name].shape, expected.shape)
        assert found[name].dtype == golden.dtype, key
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        scale = max(1.0, scale) if golden.dtype == torch.float64 else scale
        error = float((found[name] - expected).abs().max()) if expected.numel() else 0.0
        within = TOLERANCE[golden.dtype] * scale  # which NaN is not
        assert error <= within, f"{key}: off by {error:.2e} of {scale:.2e}"


def test_there_are_golden_vectors():
    assert RUNS, f"no *.safetensors in {FOLDER}"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("path", "call"), RUNS, ids=lambda v: getattr(v, "stem", v))
def test_our_blocks_do_what_the_published_code_does(path, call, precision):
    golden = case(path, PRECISIONS[precision])  # a file that cannot be read fails here
    assert call is not None, f"{path} has no calls"
    check(golden, call)


# The comparison bites


def changed(folder, name, change):
    """Write a golden file after ``change(tensors, about)``."""
    path = OURS / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["golden"])
    tensors = load_file(path)
    change(tensors, about)
    save_file(tensors, folder / path.name, metadata={"golden": json.dumps(about)})
    return folder / path.name


@pytest.mark.parametrize("key", ["out64.fwd.logdet", "out64.fwd.param_grad_norms"])
def test_a_wrong_result_is_noticed(tmp_path, key):
    def change(tensors, about):
        tensors[key].view(-1)[3] += 1e-8

    if key == "out64.fwd.logdet":
        check(Case(OURS / "S1.safetensors", torch.float64), "fwd")
    with pytest.raises(AssertionError, match=key.removeprefix("out64.")):
        check(Case(changed(tmp_path, "S1", change), torch.float64), "fwd")


CHANGES = {
    "constructor": lambda about: about["ctor"].update(whatever=1),
    "value": lambda about: about["ctor"].update(permutation="diagonal"),
    "option": lambda about: about["calls"][1]["kwargs"].update(whatever=1),
    "method": lambda about: about["calls"][1].update(method="whatever"),
    "input": lambda about: about["calls"][1]["inputs"].update(whatever="in.x"),
    "family": lambda about: about.update(family="whatever"),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("name", ["S1", "T1"])
def test_what_is_not_known_is_refused(tmp_path, name, what):
    path = changed(tmp_path, name, lambda tensors, about: CHANGES[what](about))
    with pytest.raises(ValueError, match=r"whatever|diagonal"):
        check(Case(path, torch.float64), "rev")


def test_a_file_that_cannot_be_read_is_a_run_that_fails(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    (path,) = files(tmp_path)
    assert calls(path) is None
    with pytest.raises(Exception, match=r"(?i)header"):
        Case(path, torch.float64)
