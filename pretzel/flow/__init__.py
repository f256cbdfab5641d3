"""The flow: blocks, transforms, scan orders, the deep stream, the split of layers."""

from pretzel.flow.block import AFBlock, AutoregressiveBlock, FlowBlock, Flowed, FlowStack
from pretzel.flow.deep import DeepStream
from pretzel.flow.permutations import ColumnMajor, FixedRandom, Flip, Permutation, Raster
from pretzel.flow.split import ExplicitSplit, FractionSplit, Split
from pretzel.flow.transforms import AffineExp, AffineSoftplus, AffineTransform, Transform

__all__ = [
    "AFBlock",
    "AffineExp",
    "AffineSoftplus",
    "AffineTransform",
    "AutoregressiveBlock",
    "ColumnMajor",
    "DeepStream",
    "ExplicitSplit",
    "FixedRandom",
    "Flip",
    "FlowBlock",
    "FlowStack",
    "Flowed",
    "FractionSplit",
    "Permutation",
    "Raster",
    "Split",
    "Transform",
]
