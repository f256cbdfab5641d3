"""Weights of the public TarFlow and STARFlow models in our blocks.

:func:`read_checkpoint` reads a file, :func:`read_tarflow` and :func:`read_starflow` turn its
tensors into the configuration and the weights of our blocks, and account for every key;
``pretzel import`` writes both as a run that ``fit``, ``test`` and ``sample`` continue.
"""

from pretzel.interop.blocks import ReadBlock, ReadFlow
from pretzel.interop.published import KeyReport, read_checkpoint
from pretzel.interop.starflow import StarflowOptions, read_starflow, read_starflow_block
from pretzel.interop.tarflow import read_tarflow, read_tarflow_block

__all__ = [
    "KeyReport",
    "ReadBlock",
    "ReadFlow",
    "StarflowOptions",
    "read_checkpoint",
    "read_starflow",
    "read_starflow_block",
    "read_tarflow",
    "read_tarflow_block",
]
