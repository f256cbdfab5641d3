"""Normalizing flows of latent grids: blocks and their parts, the deep stream, the layer split."""

from pretzel.flow.af_block import AFBlock
from pretzel.flow.block import AutoregressiveBlock, FlowBlock, Flowed, FlowStack, Identity
from pretzel.flow.conditioner import Conditioner, ConditionerCache
from pretzel.flow.context import (
    AdaLN,
    AddedContext,
    ClassVector,
    ContextReader,
    ContextVector,
    PooledText,
    PrefixContext,
)
from pretzel.flow.deep import DeepStream
from pretzel.flow.layer_split import ExplicitSplit, FractionSplit, ParameterSplit, Split
from pretzel.flow.mlp import GEGLU, MLP, FeedForward, SwiGLU
from pretzel.flow.norms import LayerNorm, Norm, RMSNorm
from pretzel.flow.permutations import (
    ColumnMajor,
    FixedRandom,
    Flip,
    FlipWithinFrame,
    Permutation,
    Raster,
)
from pretzel.flow.positions import AxialPositions, LearnedPositions, Positions, StarflowPositions
from pretzel.flow.start_token import LatentStart, Start, StartToken, ZeroShift
from pretzel.flow.transformer import CausalTransformer
from pretzel.flow.transforms import (
    AffineExp,
    AffineSoftplus,
    AffineTransform,
    MixtureCDF,
    SoftClip,
    Spline,
    Transform,
    VolumePreserving,
)

__all__ = [
    "GEGLU",
    "MLP",
    "AFBlock",
    "AdaLN",
    "AddedContext",
    "AffineExp",
    "AffineSoftplus",
    "AffineTransform",
    "AutoregressiveBlock",
    "AxialPositions",
    "CausalTransformer",
    "ClassVector",
    "ColumnMajor",
    "Conditioner",
    "ConditionerCache",
    "ContextReader",
    "ContextVector",
    "DeepStream",
    "ExplicitSplit",
    "FeedForward",
    "FixedRandom",
    "Flip",
    "FlipWithinFrame",
    "FlowBlock",
    "FlowStack",
    "Flowed",
    "FractionSplit",
    "Identity",
    "LatentStart",
    "LayerNorm",
    "LearnedPositions",
    "MixtureCDF",
    "Norm",
    "ParameterSplit",
    "Permutation",
    "PooledText",
    "Positions",
    "PrefixContext",
    "RMSNorm",
    "Raster",
    "SoftClip",
    "Spline",
    "Split",
    "StarflowPositions",
    "Start",
    "StartToken",
    "SwiGLU",
    "Transform",
    "VolumePreserving",
    "ZeroShift",
]
