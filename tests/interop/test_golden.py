"""What the published code gives, our blocks give with its weights.

Every file of golden vectors in ``$PRETZEL_GOLDEN`` (``tests/golden``) is run, call by call, in
float64 and float32. A file or a call that cannot be run is a failure.
"""

from functools import lru_cache

import pytest
import torch
from golden import FOLDER, Case, calls, files

RUNS = [(path, call) for path in files() for call in calls(path) or [None]]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


@lru_cache(maxsize=2)
def case(path, dtype):
    return Case(path, dtype)


def test_there_are_golden_vectors():
    assert RUNS, f"no *.safetensors in {FOLDER}"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("path", "call"), RUNS, ids=lambda v: getattr(v, "stem", v))
def test_our_blocks_do_what_the_published_code_does(path, call, precision):
    dtype = PRECISIONS[precision]
    golden = case(path, dtype)  # a file without calls fails here or below
    assert call is not None, f"{path} has no calls"
    found = golden.run(call)
    outputs = golden.call(call)["outputs"]
    assert outputs, f"{path}: {call} has no outputs to compare with"
    for key in outputs:
        name = key.removeprefix(f"out.{call}.")
        assert name in found, f"{path}: {call} gives no {name}, only {sorted(found)}"
        expected = golden.expected(key)
        assert found[name].shape == expected.shape, (key, found[name].shape, expected.shape)
        assert found[name].dtype == dtype, key
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        scale = max(1.0, scale) if dtype == torch.float64 else scale
        error = float((found[name] - expected).abs().max()) if expected.numel() else 0.0
        assert error <= TOLERANCE[dtype] * scale, f"{key}: off by {error:.2e} of {scale:.2e}"
