"""Law cases of Pretzel's own parts: how each concrete class is built when it stands trial."""

from collections.abc import Callable
from functools import partial

from pretzel.flow.block import AFBlock
from pretzel.flow.permutations import ColumnMajor, FixedRandom, Flip, Permutation, Raster
from pretzel.flow.transforms import AffineExp, AffineSoftplus, Transform
from pretzel.interleave.stacked import Stacked
from pretzel.interleave.text_prefix import TextPrefix
from pretzel.interleave.unconditional import Unconditional
from pretzel.sampling.denoise import NoDenoiser, ScoreDenoiser
from pretzel.sampling.guidance import GaussianMixing, NoGuidance
from pretzel.testing.tiny import tiny_pretzel

Factory = Callable[[], object]


def af_block(
    grid: tuple[int, ...], permutation: Permutation, transform: Transform, num_layers: int = 1
) -> AFBlock:
    """Return a small block of three channels."""
    return AFBlock(
        3, grid, num_layers, permutation, transform=transform, width=16, head_dim=8, mlp_ratio=2.0
    )


CASES: dict[type, list[Factory]] = {
    AFBlock: [
        partial(af_block, (3, 3), Flip(), AffineSoftplus(), num_layers=2),
        partial(af_block, (2, 3), FixedRandom(seed=1), AffineExp()),
        partial(af_block, (2, 1, 3), ColumnMajor(flip=True), AffineSoftplus(min_scale=0.0)),
        partial(af_block, (4,), Raster(), AffineSoftplus()),
    ],
    AffineSoftplus: [AffineSoftplus, partial(AffineSoftplus, min_scale=0.1)],
    AffineExp: [AffineExp],
    Raster: [Raster],
    Flip: [Flip],
    ColumnMajor: [ColumnMajor, partial(ColumnMajor, flip=True)],
    FixedRandom: [partial(FixedRandom, seed=0), partial(FixedRandom, seed=7)],
    NoGuidance: [NoGuidance],
    GaussianMixing: [partial(GaussianMixing, weight=w) for w in (0.0, 2.5)],
    NoDenoiser: [NoDenoiser],
    ScoreDenoiser: [ScoreDenoiser],
    Stacked: [
        partial(tiny_pretzel, Stacked),
        partial(tiny_pretzel, partial(Stacked, vlm_skip=False, detach_u=True)),
    ],
    TextPrefix: [partial(tiny_pretzel, TextPrefix)],
    Unconditional: [partial(tiny_pretzel, Unconditional)],
}
