"""Wrong arguments and inputs are refused in one sentence that names argument and value."""

import math
from functools import partial

import pytest
import torch

from pretzel.errors import UserError
from pretzel.flow import (
    GEGLU,
    MLP,
    AddedContext,
    AFBlock,
    AffineExp,
    AffineSoftplus,
    AxialPositions,
    CausalTransformer,
    ClassVector,
    DeepStream,
    Flip,
    FlowStack,
    FractionSplit,
    Identity,
    LearnedPositions,
    MixtureCDF,
    ParameterSplit,
    PooledText,
    PrefixContext,
    SoftClip,
    Spline,
    StarflowPositions,
)
from pretzel.flow.positions import AxialRotary, GridEmbedding
from pretzel.testing.law_case import normal

TRANSFORMER = partial(CausalTransformer, width=16, head_dim=8)
BLOCK = partial(
    AFBlock, channels=2, grid=(2, 3), num_layers=1, permutation=Flip(),
    transform=AffineSoftplus(), conditioner=TRANSFORMER,
)  # fmt: skip
DEEP = partial(
    DeepStream, channels=2, grid=(2, 3), num_layers=1, transform=AffineExp(),
    conditioner=TRANSFORMER,
)  # fmt: skip
AXIAL = partial(AxialPositions, grid=(2, 3), width=16, rotary_dim=8, text_axis=False)
IDENTITY = partial(Identity, channels=2, grid=(2, 3), num_layers=0, permutation=Flip())
NETWORK = partial(CausalTransformer, num_layers=1, width=16, head_dim=8)
FRACTION = partial(FractionSplit, total=8, shallow_fraction=0.5, num_shallow=2)
PARAMETERS = partial(ParameterSplit, total=1000, shallow_fraction=0.5, num_shallow=2)
STARFLOW = partial(
    StarflowPositions, grid=(2, 3), width=16, rotary_dim=24, text_axis=True, side=2,
    of_text_model=True,
)  # fmt: skip
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("build", "argument", "values"),
    [
        (BLOCK, "num_layers", [0, -1]),
        (BLOCK, "channels", [0, -2]),
        (BLOCK, "grid", [(0, 4), (2, -3), ()]),
        (DEEP, "num_layers", [-1]),
        (DEEP, "channels", [0]),
        (DEEP, "grid", [(0, 4), ()]),
        (IDENTITY, "channels", [0]),
        (IDENTITY, "grid", [(0, 4)]),
        (AXIAL, "grid", [(0, 4)]),
        (AXIAL, "theta", [0.0, -1.0, NAN, INF]),
        (partial(AXIAL, rotary_dim=0), "theta", [0.0, NAN]),
        (partial(AxialRotary, head_dim=8, num_axes=2), "theta", [0.0, -1.0, NAN, INF]),
        (partial(AxialRotary, head_dim=8), "num_axes", [0]),
        (partial(GridEmbedding, grid=(2, 3)), "width", [0]),
        (partial(LearnedPositions, width=16, rotary_dim=8, text_axis=False), "grid", [(0, 4)]),
        (STARFLOW, "grid", [(0, 4)]),
        (STARFLOW, "side", [0, -1]),
        (partial(STARFLOW, of_text_model=False), "head_dim", [0]),
        (NETWORK, "num_layers", [-1]),
        (NETWORK, "width", [0, -16]),
        (NETWORK, "head_dim", [0, -8]),
        (partial(NETWORK, num_heads=2), "head_dim", [0, -8]),
        (NETWORK, "num_heads", [0, -2]),
        (NETWORK, "num_kv_heads", [0, -1, 3]),
        (partial(MLP, 16, True), "ratio", [0.0, -1.0, NAN, INF]),
        (partial(GEGLU, 16, True), "ratio", [NAN]),
        (partial(ClassVector, 16), "num_classes", [0]),
        (partial(PooledText, 16), "channels", [0, -1]),
        (partial(PrefixContext, 16, 1), "channels", [0, -1]),
        (FRACTION, "total", [0, -8]),
        (FRACTION, "shallow_fraction", [NAN, INF, -0.5, 1.0]),
        (FRACTION, "num_shallow", [-2]),
        (PARAMETERS, "shallow_fraction", [NAN, INF]),
        (AffineSoftplus, "min_scale", [-0.1, 1.0, NAN]),
        (partial(MixtureCDF, 2), "min_scale", [0.0, NAN]),
        (partial(SoftClip, AffineExp()), "bound", [0.0, NAN, INF]),
        (Spline, "bound", [-1.0, NAN, INF]),
        (Spline, "min_slope", [0.0, NAN]),
    ],
)
def test_impossible_sizes_and_numbers_are_refused(build, argument, values):
    for value in values:
        given = getattr(build, "keywords", {})
        name = "rotary_dim" if argument == "head_dim" and "rotary_dim" in given else argument
        with pytest.raises(UserError, match=rf"{argument}\b.* must be|{argument} must") as raised:
            build(**{name: value})
        assert f"got {value}" in str(raised.value) or f"{argument}={value}" in str(raised.value)


def test_heads_that_do_not_exist_are_not_blamed_on_others():
    with pytest.raises(UserError, match="num_heads must be positive, got 0"):
        NETWORK(num_heads=0)


def labels(*values):
    return torch.tensor(values)


def test_contexts_of_another_batch_are_refused():
    made = BLOCK(context=partial(AddedContext, vector=partial(ClassVector, num_classes=3)))
    x = normal(2, 6, 2).float()
    for function in (made.forward, made.inverse, FlowStack([made]).forward):
        with pytest.raises(UserError, match=r"AFBlock takes a context of 2 rows.*got 3"):
            function(x, labels(0, 1, 2))


def test_another_dtype_than_the_parameters_is_refused_unless_autocast_casts():
    made, x = BLOCK(), normal(2, 6, 2)
    with pytest.raises(UserError, match=r"AFBlock takes x of dtype torch.float32.*torch.float64"):
        made(x)
    with pytest.raises(UserError, match=r"AFBlock takes z of dtype torch.bfloat16.*float32"):
        BLOCK().bfloat16().inverse(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        made(x.bfloat16())
    assert IDENTITY()(x).z.dtype == x.dtype
    assert made.to("meta")(x.float().to("meta")).z.is_meta
