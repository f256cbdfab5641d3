"""The benchmark of shared rows at tiny sizes: its arms compute the same; it is not timed."""

import torch

from benchmarks import measure, packing
from pretzel.interleave import Stacked
from pretzel.testing import tiny_pretzel
from pretzel.testing.tiny_model import batch


def test_arms_compute_the_same():
    model = tiny_pretzel(Stacked)
    task = packing.task("step", model, batch(model, torch.float32), [30, 60])
    rows = measure.run(task, 1, torch.device("cpu"))
    assert [(row.arm, row.other) for row in rows] == [
        ("padded", "rows of 30"),
        ("padded", "rows of 60"),
    ]


def test_documents_are_of_many_lengths_or_of_one():
    lengths = {
        name: {len(d.segments) for d in packing.batch(recipe, 24).documents}
        for name, recipe in packing.recipes().items()
    }
    assert len(lengths["many lengths"]) >= 3
    assert lengths["one length"] == {2}
