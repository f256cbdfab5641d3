"""Compiled layers compute what layers compute, in training alone, and are compiled once."""

import logging
import subprocess
import sys
import textwrap

import pytest
import torch

from pretzel.flow import CausalTransformer, compiled_layers

# In a process without the checks of shapes, which cannot be compiled.
SCRIPT = """
import torch
from pretzel.flow import CausalTransformer

def trained(model, h, *args):
    model.zero_grad()
    out = model(h, *args)
    out.square().sum().backward()
    return [out.detach()] + [p.grad.clone() for p in model.parameters()]

def make(compile, layers, **options):
    torch.manual_seed(0)
    options = {"width": 32, "head_dim": 8, **options}
    return CausalTransformer(layers, compile=compile, **options)

def equal(these, those, **tolerance):
    for one, other in zip(these, those, strict=True):
        torch.testing.assert_close(one, other, **tolerance)

def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]

torch.set_num_threads(1)
wide, narrow = torch.randn(3, 20, 32), torch.randn(2, 7, 32)
first = make(True, 4)
equal(trained(first, wide), trained(make(False, 4), wide), rtol=1e-4, atol=1e-5)
one = graphs()
assert one > 0
known = trained(first, narrow)
assert graphs() == one, "another size, another graph"
trained(make(True, 2), wide)
assert graphs() == one, "layers that are alike share a graph"
with torch.no_grad():
    equal([first(wide)], [make(False, 4)(wide)], rtol=0, atol=0)
assert graphs() == one, "only training is compiled"

mask = torch.ones(20, 20, dtype=torch.bool).tril()[None, None]
modulation = torch.randn(3, 2, 6, 32) / 10
options = {"num_kv_heads": 2, "gradient_checkpointing": True, "gated_attention": True}
args = (None, mask, None, modulation)
equal(
    trained(make(True, 2, **options), wide, *args),
    trained(make(False, 2, **options), wide, *args),
    rtol=1e-4,
    atol=1e-5,
)

# A run that is resumed meets other sizes first.
torch._dynamo.reset()
equal(trained(first, narrow), known, rtol=0, atol=0)
"""


def test_it_runs_uncompiled_where_there_is_no_compiler(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled_layers._log.cache_clear()
    model = CausalTransformer(2, width=16, head_dim=8, compile=True)
    h = torch.randn(2, 5, 16)
    with caplog.at_level(logging.WARNING):
        out = model(h)
    assert [record.message for record in caplog.records] == [
        "compile: there is no C++ compiler no-such-compiler, so layers run uncompiled"
    ]
    with torch.no_grad():
        assert torch.equal(out, model(h))


@pytest.mark.slow
def test_compiled_layers_are_the_same_layers():
    subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], check=True)
