"""A plain STARFlow, as the published code works, to measure our flow against.

Functional, over given weights, written from the mathematics alone (``tests/golden`` proves it):
in training a causal mask is materialised; in sampling keys are cached unrotated in lists, are
concatenated and all rotated again at every step, and sequences grow by concatenation. What costs it
nothing to do well it does well: cosines and sines are computed once a pass, and key heads are
repeated only where several query heads share one.
"""

from benchmarks.reference.flow import forward, forward_all, inverse, inverse_all
from benchmarks.reference.network import Block
from benchmarks.reference.ours import from_block
from benchmarks.reference.published import from_published

__all__ = [
    "Block",
    "forward",
    "forward_all",
    "from_block",
    "from_published",
    "inverse",
    "inverse_all",
]
