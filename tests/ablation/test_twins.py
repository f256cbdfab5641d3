"""Runs that claim to differ and do not: hashes of weights, and what is told of them."""

import pytest
import torch
from torch import nn

from pretzel.ablation.twins import Traces, twin_sentences
from pretzel.runs.weights_hash import trained_weights_hash


class Weights(nn.Module):
    def __init__(self, frozen=0.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.matrix = nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16).T)
        self.encoder = nn.Parameter(torch.tensor([frozen]), requires_grad=False)
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64))


def nudged(name):
    module = Weights()
    tensor = module.state_dict()[name]
    with torch.no_grad():
        tensor.view(-1)[0] = torch.nextafter(tensor.view(-1)[0], torch.tensor(9.0).to(tensor))
    return module


def test_every_bit_of_what_trains_counts_and_nothing_else():
    base = trained_weights_hash(Weights())
    assert trained_weights_hash(Weights(frozen=1.0)) == base
    assert trained_weights_hash(nudged("scale")) != base
    counted = Weights()
    counted.count += 1
    assert trained_weights_hash(counted) != base
    renamed = Weights()
    renamed.size = renamed.scale
    del renamed.scale
    assert trained_weights_hash(renamed) != base
    negative = Weights()
    negative.encoder.requires_grad_(True)
    assert trained_weights_hash(negative) != base


def plan(*runs):
    """Return a plan of runs: name, training and evaluation of each."""
    listed = []
    for name, identity, evaluation in runs:
        arm, _, seed = name.partition("/seed")
        number = int(seed) if seed else None
        listed.append({"name": name, "arm": arm, "seed": number, "identity": identity})
        listed[-1]["evaluation"] = evaluation
    changes = {"a": [], "b": ["x: 1 -> 2"], "c": ["x: 1 -> 2", "y: 3 -> 4"]}
    return {"runs": listed, "arms": {arm: {"changes": own} for arm, own in changes.items()}}


def traces(**weights):
    return Traces.of({"weights": weights, "measured": weights.pop("measured", None)})


TRAIN = "train the same thing: their weights are equal bit for bit, after 4 steps and at the end"
SO_FAR = (
    "have the same weights bit for bit after 4 steps of training: what they differ in has changed "
    "nothing so far"
)
STARTED, OTHER = traces(step=4, first="f"), traces(step=4, first="g")
ENDED, ELSEWHERE = (traces(step=4, first="f", final=end) for end in "xy")


@pytest.mark.parametrize(("a", "b", "expected"), [
    (STARTED, STARTED, [f"a and b (seed0) {SO_FAR} (b claims x: 1 -> 2)"]),
    (ENDED, STARTED, [f"a and b (seed0) {SO_FAR} (b claims x: 1 -> 2)"]),
    (ENDED, ENDED, [f"a and b (seed0) {TRAIN} (b claims x: 1 -> 2)"]),
    (ENDED, ELSEWHERE, []),  # what differs comes later: averages, more steps
    (STARTED, OTHER, []),
    (STARTED, traces(step=5, first="f"), []),
    (Traces(), Traces(), []),
    # too few steps: the end alone
    (traces(final="x"), traces(final="x"),
     [f"a and b (seed0) {TRAIN.replace('after 4 steps and ', '')} (b claims x: 1 -> 2)"]),
])  # fmt: skip
def test_arms_that_train_the_same(a, b, expected):
    runs = plan(("a/seed0", "1", "e"), ("b/seed0", "2", "e"))
    assert twin_sentences(runs, {"a/seed0": a, "b/seed0": b}) == expected


def test_arms_that_differ_in_evaluation_alone_are_no_twins_unless_they_measure_the_same():
    runs = plan(("b/seed0", "1", "e"), ("c/seed0", "1", "f"))
    same, other = (traces(step=4, first="f", final="x", measured=m) for m in "mn")
    assert twin_sentences(runs, {"b/seed0": same, "c/seed0": other}) == []
    assert twin_sentences(runs, {"b/seed0": ENDED, "c/seed0": ENDED}) == []
    assert twin_sentences(runs, {"b/seed0": same, "c/seed0": same}) == [
        "b and c (seed0) measure the same thing: every sample has the same result, bit for bit "
        "(c claims y: 3 -> 4)"  # what both change is no difference of theirs
    ]


def test_seeds_of_the_same_arms_share_a_sentence_and_stages_are_named():
    names = ["a/seed0", "b/seed0", "a/seed1", "b/seed1", "s1-x", "s1-y"]
    runs = plan(*((name, str(number), None) for number, name in enumerate(names)))
    ends = ["p", "p", "q", "q", "r", "r"]
    told = {n: traces(step=4, first=e, final=e) for n, e in zip(names, ends, strict=True)}
    assert twin_sentences(runs, told) == [
        f"a and b (seed0, seed1) {TRAIN} (b claims x: 1 -> 2)", f"s1-x and s1-y {TRAIN}",
    ]  # fmt: skip


def test_a_seed_that_changes_nothing_is_told():
    runs = plan(("a/seed0", "1", "e"), ("a/seed1", "2", "e"))
    assert twin_sentences(runs, {"a/seed0": ENDED, "a/seed1": ENDED}) == [
        f"a/seed0 and a/seed1 {TRAIN}"
    ]
