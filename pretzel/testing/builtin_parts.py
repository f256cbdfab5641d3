"""Configurations in which the laws test each of Pretzel's own parts."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from pretzel.flow.af_block import AFBlock
from pretzel.flow.block import Identity
from pretzel.flow.context import AdaLN, AddedContext, ClassVector, PooledText, PrefixContext
from pretzel.flow.layer_split import ExplicitSplit, FractionSplit, ParameterSplit
from pretzel.flow.mlp import GEGLU, MLP, SwiGLU
from pretzel.flow.norms import LayerNorm, RMSNorm
from pretzel.flow.permutations import (
    ColumnMajor,
    FixedRandom,
    Flip,
    FlipWithinFrame,
    Permutation,
    Raster,
)
from pretzel.flow.positions import AxialPositions, LearnedPositions, StarflowPositions
from pretzel.flow.start_token import LatentStart, StartToken, ZeroShift
from pretzel.flow.transformer import CausalTransformer
from pretzel.flow.transforms import (
    AffineExp,
    AffineSoftplus,
    MixtureCDF,
    SoftClip,
    Spline,
    Transform,
    VolumePreserving,
)
from pretzel.interleave.adapter import LinearAdapter, MLPAdapter, NoAdapter
from pretzel.interleave.base import Interleaving
from pretzel.interleave.mixture import MixtureOfTransformers
from pretzel.interleave.skips import GatedSkip, RandomSkip, ZeroSkip
from pretzel.interleave.stacked import Stacked
from pretzel.interleave.text_prefix import TextPrefix
from pretzel.interleave.tiled import Tiled
from pretzel.interleave.unconditional import Unconditional
from pretzel.interleave.vision_input import FlowInput, LatentInput, TowerInput
from pretzel.latent import (
    FAE,
    Autoencoder,
    DiffusersVAE,
    LatentSpace,
    LinearLatents,
    Patches,
    Pixels,
)
from pretzel.latent.fae import (
    AttentionBottleneck,
    ConvPixelDecoder,
    NoBottleneck,
    NoFeatureDecoder,
    TransformerFeatureDecoder,
    ViTPixelDecoder,
)
from pretzel.latent.features import EfficientNetLite0, PixelPatches, TransformersVision
from pretzel.media import Pictures, Sounds, Videos
from pretzel.sampling.denoisers import NoDenoiser, ScoreDenoiser
from pretzel.sampling.guidance import (
    AttentionTemperature,
    GaussianMixing,
    LinearGuidance,
    NoGuidance,
)
from pretzel.sampling.learned_denoiser import LearnedDenoiser
from pretzel.sampling.samplers import GaussSeidelJacobi, Jacobi, SelectiveJacobi, Sequential
from pretzel.tarflow.condition import ClassNames, NoCondition
from pretzel.tarflow.text_encoder import TextEncoder
from pretzel.testing.laws import fae_parts
from pretzel.testing.laws.adapters import FEATURES
from pretzel.testing.laws.denoisers import CHANNELS
from pretzel.testing.laws.skips import SOURCE, TARGET
from pretzel.testing.suite import laws_module
from pretzel.testing.tiny_model import tiny_pretzel, transformer
from pretzel.vlm.base import VLMStream

Factory = Callable[[], object]


def af_block(
    grid: tuple[int, ...],
    permutation: Permutation,
    transform: Transform,
    num_layers: int = 1,
    channels: int = 3,
    **options: Any,  # noqa: ANN401
) -> AFBlock:
    """Return a small block."""
    options.setdefault("conditioner", transformer(width=16, head_dim=8))
    return AFBlock(channels, grid, num_layers, permutation, transform=transform, **options)


def block_factory(transform: Transform | None = None, **options: Any) -> Factory:  # noqa: ANN401
    """Return a factory of blocks on a small grid with the given options."""
    return partial(af_block, (2, 2), Flip(), transform or AffineSoftplus(), num_layers=2, **options)


CLASS_VECTOR = partial(ClassVector, num_classes=3)
BLOCKS: list[Factory] = [
    # TarFlow's block, STARFlow's, and the same with everything else that can be chosen
    block_factory(
        AffineExp(),
        conditioner=transformer(
            width=16, head_dim=8, norm=LayerNorm, qk_norm=False, final_norm=False
        ),
        positions=LearnedPositions,
        start=ZeroShift,
        context=partial(AddedContext, vector=CLASS_VECTOR),
    ),
    block_factory(
        conditioner=transformer(width=16, head_dim=24, num_heads=2, qk_norm=False),
        positions=partial(StarflowPositions, side=2, of_text_model=True),
        start=LatentStart,
        context=partial(PrefixContext, channels=5),
    ),
    block_factory(
        conditioner=partial(
            CausalTransformer, width=16, head_dim=8, num_kv_heads=1, mlp=SwiGLU,
            post_norm=True, bias=False, gated_attention=True,
        ),
        context=partial(AdaLN, vector=CLASS_VECTOR),
    ),
    block_factory(
        conditioner=partial(CausalTransformer, width=16, head_dim=8, mlp=GEGLU),
        positions=partial(AxialPositions, embedding=False),
        start=ZeroShift,
        context=partial(PrefixContext, channels=5),
    ),
    block_factory(context=partial(AddedContext, vector=partial(PooledText, channels=5))),
]  # fmt: skip


def learned_denoiser(grid: tuple[int, ...], num_blocks: int = 1) -> LearnedDenoiser:
    """Return a small denoiser for the latents of the laws."""
    denoiser = LearnedDenoiser(width=8, num_blocks=num_blocks)
    denoiser.fit_to(CHANNELS, grid)
    return denoiser


def in_model(
    interleaving: Callable[..., Interleaving],
    deep_layers: int | None = None,
    latent: LatentSpace | None = None,
    **options: Any,  # noqa: ANN401
) -> Factory:
    """Return a factory of a small model around an interleaving with the given options."""
    made = partial(interleaving, **options)
    return partial(tiny_pretzel, made, deep_layers=deep_layers, latent=latent)


SOUND = Patches(Sounds(8, 12), [3], 0.1)
VIDEO = Patches(Videos(2, 2), [1, 2, 1], 0.1)
"""Spaces with a grid of one axis, and of three."""


LATENTS = (fae_parts.GRID, fae_parts.CHANNELS, fae_parts.FEATURES)
PIXELS = (fae_parts.GRID, fae_parts.FEATURES, fae_parts.IMAGE_SIZE)

BUILTIN_PARTS: dict[type, list[Factory]] = {
    Identity: [partial(Identity, 3, (2, 2), 0, Flip())],
    AFBlock: [
        partial(af_block, (2, 3), Flip(), AffineSoftplus(), num_layers=2),
        partial(af_block, (2, 1, 2), ColumnMajor(flip=True), AffineSoftplus(min_scale=0.0)),
        partial(af_block, (2, 1, 2), FlipWithinFrame(), MixtureCDF(num_components=2)),
        partial(af_block, (2, 2), FixedRandom(seed=1), SoftClip(Spline(num_bins=4))),
        partial(af_block, (3,), Raster(), VolumePreserving()),
        partial(af_block, (3, 5, 5), FlipWithinFrame(), AffineExp(), channels=1),
        *BLOCKS,
    ],
    CausalTransformer: BLOCKS,
    AxialPositions: BLOCKS[2:4],
    LearnedPositions: BLOCKS[:1],
    StarflowPositions: BLOCKS[1:2],
    StartToken: BLOCKS[2:3],
    LatentStart: BLOCKS[1:2],
    ZeroShift: BLOCKS[:1],
    AddedContext: BLOCKS[:1],
    PrefixContext: BLOCKS[1:2],
    AdaLN: BLOCKS[2:3],
    ClassVector: BLOCKS[:1],
    PooledText: BLOCKS[4:],
    RMSNorm: BLOCKS[1:2],
    LayerNorm: BLOCKS[:1],
    MLP: BLOCKS[:1],
    SwiGLU: BLOCKS[2:3],
    GEGLU: BLOCKS[3:4],
    AffineSoftplus: [AffineSoftplus, partial(AffineSoftplus, min_scale=0.1)],
    AffineExp: [AffineExp],
    VolumePreserving: [VolumePreserving, partial(VolumePreserving, learn_variance=False)],
    MixtureCDF: [partial(MixtureCDF, num_components=k) for k in (1, 3)],
    Spline: [Spline, partial(Spline, num_bins=3, bound=1.5, min_bin=0.05, min_slope=0.05)],
    SoftClip: [
        partial(SoftClip, AffineExp(), bound=2.0),
        partial(SoftClip, VolumePreserving()),
        partial(SoftClip, MixtureCDF(num_components=2)),
    ],
    Raster: [Raster],
    Flip: [Flip],
    FlipWithinFrame: [FlipWithinFrame],
    ColumnMajor: [ColumnMajor, partial(ColumnMajor, flip=True)],
    FixedRandom: [partial(FixedRandom, seed=0), partial(FixedRandom, seed=7)],
    NoGuidance: [NoGuidance],
    GaussianMixing: [partial(GaussianMixing, weight=w) for w in (0.0, 2.5)],
    LinearGuidance: [
        partial(LinearGuidance, weight=1.5),
        partial(LinearGuidance, weight=1.5, annealed=True, scale=False),
    ],
    AttentionTemperature: [
        partial(AttentionTemperature, LinearGuidance(weight=2.0), temperature=1.3),
        partial(AttentionTemperature, GaussianMixing(weight=2.0), temperature=0.5),
    ],
    Sequential: [Sequential, partial(Sequential, compile=True)],
    Jacobi: [
        partial(Jacobi, tolerance=0.0),
        partial(Jacobi, block_size=2, tolerance=1e-20),
        partial(Jacobi, block_size=3, tolerance=1e-26),
    ],
    SelectiveJacobi: [partial(SelectiveJacobi, jacobi=Jacobi(tolerance=1e-26))],
    GaussSeidelJacobi: [
        partial(GaussSeidelJacobi, tolerance=1e-26, num_samples=2),
        partial(GaussSeidelJacobi, tolerance=1e-26, schedule=[2, 1]),
    ],
    NoDenoiser: [NoDenoiser],
    ScoreDenoiser: [ScoreDenoiser],
    LearnedDenoiser: [
        partial(learned_denoiser, (4,)),
        partial(learned_denoiser, (2, 2), num_blocks=2),
        partial(learned_denoiser, (2, 1, 2)),
    ],
    Stacked: [
        in_model(Stacked),
        in_model(Stacked, vlm_skip=False, detach_u=True),
        in_model(Stacked, latent=SOUND, skips=RandomSkip, adapter=MLPAdapter),
        in_model(Stacked, latent=VIDEO, skips=GatedSkip, vision_input=LatentInput()),
        in_model(Stacked, adapter=NoAdapter, vision_input=TowerInput()),
    ],
    Tiled: [
        in_model(Tiled, 2, word="VVF"),
        in_model(Tiled, 4, VIDEO, word="VF", direction="vlm_to_flow", skips=GatedSkip),
        in_model(Tiled, 4, word="VFFV", direction="flow_to_vlm", skips=RandomSkip),
        in_model(Tiled, 2, word="VVF", skips=GatedSkip, vision_input=LatentInput()),
        in_model(Tiled, 2, word="VVF", adapter=NoAdapter, vision_input=TowerInput()),
    ],
    MixtureOfTransformers: [
        in_model(MixtureOfTransformers, 0),
        in_model(MixtureOfTransformers, 0, VIDEO, trains_text=True, random_start=True),
    ],
    TextPrefix: [in_model(TextPrefix, latent=SOUND)],
    Unconditional: [in_model(Unconditional)],
    **{skip: [partial(skip, SOURCE, TARGET)] for skip in (ZeroSkip, RandomSkip, GatedSkip)},
    LinearAdapter: [partial(LinearAdapter, FEATURES, FEATURES)],
    MLPAdapter: [partial(MLPAdapter, FEATURES, FEATURES, width=8, num_hidden=2)],
    NoAdapter: [partial(NoAdapter, FEATURES, FEATURES)],
    **{vision_input: [vision_input] for vision_input in (FlowInput, LatentInput, TowerInput)},
    ExplicitSplit: [partial(ExplicitSplit, [2, 1], 4), partial(ExplicitSplit, [], 2)],
    FractionSplit: [partial(FractionSplit, 10, 0.4, 2)],
    ParameterSplit: [partial(ParameterSplit, 10**6, 0.4, 2)],
    Pixels: [partial(Pixels, 8, 2, 0.1), partial(Pixels, 5, 1, 0.0)],
    Patches: [
        partial(Patches, Sounds(80, 120), [6], 0.1),
        partial(Patches, Videos(4, 6), [2, 3, 2], 0.0),
    ],
    Pictures: [partial(Pictures, 9)],
    Videos: [partial(Videos, 3, 8)],
    Sounds: [partial(Sounds, 8000, 900)] if find_spec("soundfile") else [],
    Autoencoder: [partial(Autoencoder, 2, 0.3)],
    FAE: [partial(FAE, 0.3)],
    EfficientNetLite0: [partial(EfficientNetLite0, 16, 32, (4, 10), random_seed=0)],
    PixelPatches: [partial(PixelPatches, 16, 8)],
    AttentionBottleneck: [
        partial(AttentionBottleneck, fae_parts.GRID, fae_parts.FEATURES, channels=3, head_dim=6),
        partial(AttentionBottleneck, fae_parts.GRID, fae_parts.FEATURES, channels=2, num_layers=0),
    ],
    NoBottleneck: [partial(NoBottleneck, fae_parts.GRID, fae_parts.FEATURES)],
    TransformerFeatureDecoder: [
        partial(TransformerFeatureDecoder, *LATENTS, width=8, num_layers=2, head_dim=8)
    ],
    NoFeatureDecoder: [partial(NoFeatureDecoder, *LATENTS)],
    ViTPixelDecoder: [partial(ViTPixelDecoder, *PIXELS, width=8, num_layers=2, head_dim=8)],
    ConvPixelDecoder: [partial(ConvPixelDecoder, *PIXELS, widths=(16, 8), num_blocks=1)],
    NoCondition: [NoCondition],
    ClassNames: [partial(ClassNames, ["circle", "square", "triangle"])],
}


def shipped_cases(part: type) -> Sequence[Factory]:
    """Return the configurations in which one of our own parts is tested; none for another part."""
    module = _module_of_cases(part)
    cases: Mapping[type, Sequence[Factory]] = BUILTIN_PARTS if module is None else module.CASES
    return cases.get(part, ())


def why_without_case(part: type) -> str:
    """Return why one of our own parts has no case, or nothing."""
    module = _module_of_cases(part)
    reasons: Mapping[type, str] = WITHOUT_CASE if module is None else module.WITHOUT_CASE
    return reasons.get(part, "")


def _module_of_cases(part: type) -> ModuleType | None:
    if issubclass(part, VLMStream):
        return importlib.import_module("pretzel.testing.vlm_parts")
    return laws_module(part)


WITHOUT_CASE: dict[type, str] = {
    TextEncoder: "its weights are not shipped: check it with --init-args.name",
    DiffusersVAE: "its weights are not shipped: check it with --init-args.name",
    TransformersVision: "its weights are not shipped: check it with --init-args.name",
    Sounds: "" if find_spec("soundfile") else "the package soundfile is not installed",
    LinearLatents: "its weights are not shipped: check it with --init-args.weights",
}
"""Parts of ours without a case, and why."""
