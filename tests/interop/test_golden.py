"""Our blocks with published weights reproduce the outputs of the published code.

Every file of golden vectors in ``$PRETZEL_GOLDEN`` (``tests/golden``) is run, call by call, in
float64 and float32. A file or a call that cannot be run is a failure.
"""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from golden import Case
from golden_file import FOLDER, runs
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pretzel.flow.compiled_decoding import compiled_decoding

RUNS = runs()
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


def make(path, call, dtype):
    """Make a run: a file that cannot be read fails here, as one that tells no calls."""
    golden = case(path, dtype)
    assert call is not None, f"{path} has no calls"
    check(golden, call)


def test_there_are_golden_vectors():
    assert RUNS, f"no golden vectors in {FOLDER}"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("path", "call"), RUNS, ids=lambda v: getattr(v, "stem", v))
def test_our_blocks_do_what_the_published_code_does(path, call, precision):
    make(path, call, PRECISIONS[precision])


SAMPLED = [(path, call) for path, call in RUNS if call and "rev" in call]


@pytest.mark.parametrize(("path", "call"), SAMPLED, ids=lambda v: getattr(v, "stem", v))
def test_compiled_layers_sample_as_the_published_code_does(path, call):
    with compiled_decoding():
        make(path, call, torch.float64)


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


MALFORMED = {
    "a call without outputs": (
        lambda tensors, about: about["calls"][1].update(outputs=[]),
        "no outputs",
    ),
    "a call that says more": (
        lambda tensors, about: about["calls"][1].update(seed=1),
        r"must have .* got .*seed",
    ),
    "a call that says less": (lambda tensors, about: about["calls"][1].pop("kwargs"), "kwargs"),
    "a call twice": (lambda tensors, about: about["calls"][1].update(id="fwd"), "'fwd' twice"),
    "a result of no call": (
        lambda tensors, about: tensors.update({"out.fwd.more": torch.ones(1)}),
        r"'out\.fwd\.more' is the output of no call",
    ),
    "a result that is not there": (
        lambda tensors, about: tensors.pop("out64.rev.x"),
        r"'out64\.rev\.x'",
    ),
    "a name without out.": (
        lambda tensors, about: about["calls"][1].update(outputs=["rev.x"]),
        "begin with out",
    ),
    "a missing weight": (
        lambda tensors, about: tensors.pop("param.block.proj_out.bias"),
        "proj_out.bias",
    ),
    "a missing input": (lambda tensors, about: tensors.pop("in.noise"), "in.noise"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_fails(tmp_path, what):
    change, words = MALFORMED[what]
    path = changed(tmp_path, "S1", change)
    assert (path, "rev") in runs(tmp_path) or what == "a call twice"
    with pytest.raises((ValueError, KeyError), match=words):
        check(Case(path, torch.float64), "rev")


def test_a_file_that_cannot_be_read_is_a_run_that_fails(tmp_path):
    (tmp_path / "deeper").mkdir()
    names = ("broken.safetensors", "deeper/other.pt", "README.md", "SHA256SUMS")
    for name in names:
        (tmp_path / name).write_bytes(b"broken")
    save_file({"x": torch.ones(1)}, tmp_path / "bare.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "empty.safetensors", {"golden": '{"calls": []}'})
    made = runs(tmp_path)
    expected = ("bare.safetensors", "broken.safetensors", "deeper/other.pt", "empty.safetensors")
    assert made == [(tmp_path / name, None) for name in expected]
    for path, call in made:
        with pytest.raises(Exception, match=r"(?i)header|subscript|no call"):
            make(path, call, torch.float64)


def test_an_empty_folder_has_no_runs(tmp_path):
    assert runs(tmp_path) == runs(tmp_path / "none") == []
