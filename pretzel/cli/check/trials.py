"""Trials of a class with its user's arguments: the small sizes in which each kind is tested.

A new kind is one function and one line of :data:`KINDS` here, one of
:data:`pretzel.testing.suite.KINDS`, and its laws in :data:`pretzel.testing.suite.LAWS`. A contract
outside of the model library names the module of its laws in a class attribute ``laws``, or says in
``no_laws`` why there are none.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from pretzel.cli.check.class_arguments import ConfiguredPart
from pretzel.errors import UserError
from pretzel.flow import (
    AFBlock,
    AffineSoftplus,
    CausalTransformer,
    ColumnMajor,
    Conditioner,
    FixedRandom,
    Flip,
    FlowBlock,
    Permutation,
    Raster,
    Transform,
)
from pretzel.flow.block import BlockFactory
from pretzel.flow.conditioner import ConditionerFactory
from pretzel.flow.context import (
    AddedContext,
    ContextFactory,
    ContextReader,
    ContextVector,
    PrefixContext,
    VectorFactory,
)
from pretzel.flow.layer_split import Split
from pretzel.flow.mlp import FeedForward, MLPFactory
from pretzel.flow.norms import Norm, NormFactory
from pretzel.flow.positions import Positions, PositionsFactory
from pretzel.flow.start_token import Start, StartFactory
from pretzel.interleave import Adapter, SkipConnection, Stacked, VisionInput
from pretzel.interleave.adapter import AdapterFactory
from pretzel.interleave.base import Interleaving, InterleavingFactory
from pretzel.interleave.skips import SkipFactory
from pretzel.latent import LatentSpace
from pretzel.latent.fae import Bottleneck, FeatureDecoder, PixelDecoder
from pretzel.latent.fae.bottleneck import BottleneckFactory
from pretzel.latent.fae.feature_decoder import FeatureDecoderFactory
from pretzel.latent.fae.pixel_decoder import PixelDecoderFactory
from pretzel.latent.features import FeatureEncoder
from pretzel.media import Medium
from pretzel.sampling import Denoiser, Guidance, Sampler
from pretzel.tarflow.condition import Condition
from pretzel.testing.discovery import one_line, raised_at
from pretzel.testing.law_case import short
from pretzel.testing.laws import fae_parts
from pretzel.testing.laws.adapters import FEATURES
from pretzel.testing.laws.denoisers import CHANNELS, POSITIONS
from pretzel.testing.laws.skips import SOURCE, TARGET
from pretzel.testing.suite import laws_module
from pretzel.testing.tiny_model import tiny_pretzel
from pretzel.vlm.base import VLMStream

SIZES: list[dict[str, Any]] = [
    {"channels": 3, "grid": (2, 3), "num_layers": 1, "permutation": Raster()},
    {"channels": 2, "grid": (3, 3), "num_layers": 2, "permutation": Flip()},
    {"channels": 3, "grid": (3, 2), "num_layers": 2, "permutation": ColumnMajor()},
    {"channels": 4, "grid": (2, 2), "num_layers": 1, "permutation": FixedRandom(seed=0)},
    {"channels": 2, "grid": (2, 1, 3), "num_layers": 3, "permutation": Flip()},
    {"channels": 1, "grid": (5, 15), "num_layers": 2, "permutation": FixedRandom(seed=1)},
]
"""Sizes of the trials of blocks: odd and even, square and not, one to three layers, one channel;
the last is longer than caches of 16 and of 64 positions."""


class LawTrial(NamedTuple):
    """One configuration in which a class is tested.

    Attributes:
        label: Sizes of the configuration; empty where there is only one.
        factory: Builds the part for the laws, the same each time.
        refused: Reason why the class does not take this configuration; empty where it does.
    """

    label: str
    factory: Callable[[], object]
    refused: str = ""


class PartKind(NamedTuple):
    """How the classes of one kind are tested.

    Attributes:
        trials: Returns the trials of a class with its own arguments parsed.
        factory: The factory protocol that such a class implements in YAML, if any: a parent gives
            the parameters of its call.
        defaults: Classes for arguments that are required in YAML but not for a check.
    """

    trials: Callable[[ConfiguredPart], list[LawTrial]]
    factory: type | None = None
    defaults: Mapping[str, str] = {}

    @property
    def parent_parameters(self) -> frozenset[str]:
        """Names of the parameters that a parent gives."""
        if self.factory is None:
            return frozenset()
        return frozenset(inspect.signature(self.factory.__call__).parameters) - {"self"}


def alone(make: ConfiguredPart) -> list[LawTrial]:
    """Return one trial of a part that depends on no sizes."""
    make()
    return [LawTrial("", make)]


def blocks(make: ConfiguredPart) -> list[LawTrial]:
    """Return trials in several channels, grids, depths and orders.

    Sizes that the constructor does not have are left out.
    """
    trials: dict[str, Callable[[], object]] = {}
    for size in SIZES:
        arguments = {name: value for name, value in size.items() if name in make.accepts}
        label = ", ".join(f"{name}={short(value)}" for name, value in arguments.items())
        trials[label] = partial(make, **arguments)
    return sized_trials(trials)


def in_block(slot: str, factory: type, make: ConfiguredPart) -> list[LawTrial]:
    """Return trials of a part inside an otherwise plain block, in several sizes.

    Args:
        slot: Where it stands in the block.
        factory: The factory protocol that the block calls.
        make: Builds the part.
    """
    names = list(inspect.signature(factory.__call__).parameters)[1:]

    def made(*args: object, **kwargs: object) -> Any:  # noqa: ANN401
        return make(**dict(zip(names, args, strict=False)), **kwargs)

    network = partial(CausalTransformer, width=16, head_dim=8)
    options: dict[str, Any] = {"transform": AffineSoftplus(), "conditioner": network}
    if slot in ("norm", "mlp"):
        options["conditioner"] = partial(network, **{slot: made})
    elif slot == "vector":
        options["context"] = partial(AddedContext, vector=made)
    else:
        options[slot] = made
    trials: dict[str, Callable[[], object]] = {}
    for size in SIZES:
        label = ", ".join(f"{name}={short(value)}" for name, value in size.items())
        trials[f"in an AFBlock, {label}"] = partial(AFBlock, **size, **options)
    if slot == "positions":
        text = partial(PrefixContext, channels=5)
        block = partial(AFBlock, **SIZES[0], **options, context=text)
        trials["in an AFBlock behind a text"] = block
    return sized_trials(trials)


def sized_trials(factories: Mapping[str, Callable[[], object]]) -> list[LawTrial]:
    """Return trials in several sizes; one is skipped where a ``ValueError`` refuses it.

    Raises:
        UserError: If all are refused, or anything else is raised.
    """
    trials: list[LawTrial] = []
    refusal: UserError | None = None
    for label, factory in factories.items():
        refused = ""
        try:
            factory()
        except UserError as error:
            if not isinstance(error.__cause__ or error, ValueError):
                raise
            refusal, refused = error, str(error)
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}{raised_at(error)}"
            raise UserError(f"the part cannot be put on trial {label}: {reason}") from error
        trials.append(LawTrial(label, factory, refused))
    if refusal and all(trial.refused for trial in trials):
        raise refusal
    return trials


def denoisers(make: ConfiguredPart) -> list[LawTrial]:
    """Return trials on the latents of the laws, as a row and as a square."""

    def fitted(grid: tuple[int, ...]) -> Denoiser:
        denoiser = make()
        assert isinstance(denoiser, Denoiser)
        denoiser.fit_to(CHANNELS, grid)
        return denoiser

    return [
        built_trial(make, f"channels={CHANNELS}, grid={grid}", partial(fitted, grid))
        for grid in ((POSITIONS,), (2, POSITIONS // 2))
    ]


def skips(make: ConfiguredPart) -> list[LawTrial]:
    """Return a trial of a skip connection by itself, and one between the streams of a model."""

    def skip(source: int, target: int) -> SkipConnection:
        built = make(source=source, target=target)
        assert isinstance(built, SkipConnection)
        return built

    by_itself = partial(skip, SOURCE, TARGET)
    return [built_trial(make, "by itself", by_itself), in_stacked(make, skips=skip)]


def adapters(make: ConfiguredPart) -> list[LawTrial]:
    """Return a trial of an adapter by itself, and one in a model if it fits into that."""

    def adapter(features: int, hidden_size: int) -> Adapter:
        built = make(features=features, hidden_size=hidden_size)
        assert isinstance(built, Adapter)
        return built

    by_itself = built_trial(make, "by itself", partial(adapter, FEATURES, FEATURES))
    return [by_itself, in_stacked(make, adapter=adapter)]


def vision_inputs(make: ConfiguredPart) -> list[LawTrial]:
    """Return a trial of a vision input by itself, and one in a model."""

    def interleaving(channels: int, hidden_size: int, width: int) -> Interleaving:
        vision_input = make()
        assert isinstance(vision_input, VisionInput)
        return Stacked(channels, hidden_size, width, vision_input=vision_input)

    in_model = built_trial(make, "in a tiny Pretzel", partial(tiny_pretzel, interleaving))
    return [built_trial(make, "by itself", make), in_model]


def in_stacked(make: ConfiguredPart, **parts: Any) -> LawTrial:  # noqa: ANN401
    """Return a trial of a part in the smallest real model; refused where it does not fit in."""
    factory = partial(tiny_pretzel, partial(Stacked, **parts))
    try:
        return built_trial(make, "in a tiny Pretzel", factory)
    except UserError as error:
        return LawTrial("in a tiny Pretzel", factory, str(error))


def interleavings(make: ConfiguredPart) -> list[LawTrial]:
    """Return one trial inside the smallest real model."""

    def interleaving(channels: int, hidden_size: int, width: int) -> Interleaving:
        built = make(channels=channels, hidden_size=hidden_size, width=width)
        assert isinstance(built, Interleaving)
        return built

    return [built_trial(make, "in a tiny Pretzel", partial(tiny_pretzel, interleaving))]


def bottlenecks(make: ConfiguredPart) -> list[LawTrial]:
    """Return a trial of a bottleneck, which has channels of its own."""
    sizes = {"grid": fae_parts.GRID, "features": fae_parts.FEATURES}
    return [built_trial(make, "by itself", partial(make, **sizes))]


def latent_decoders(make: ConfiguredPart) -> list[LawTrial]:
    """Return a trial of a decoder of a feature autoencoder."""
    sizes = {
        "grid": fae_parts.GRID,
        "channels": fae_parts.CHANNELS,
        "features": fae_parts.FEATURES,
        "image_size": fae_parts.IMAGE_SIZE,
    }
    return [built_trial(make, "by itself", partial(make, **sizes))]


def built_trial(make: ConfiguredPart, label: str, factory: Callable[[], object]) -> LawTrial:
    """Return a trial whose factory has built its part once.

    Raises:
        UserError: If the part and the model around it do not fit together.
    """
    try:
        factory()
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}{raised_at(error)}"
        raise UserError(f"{make.part.__name__} cannot be put on trial: {reason}") from error
    return LawTrial(label, factory)


IN_BLOCK: list[tuple[type, str, type]] = [
    (Conditioner, "conditioner", ConditionerFactory),
    (Positions, "positions", PositionsFactory),
    (Start, "start", StartFactory),
    (ContextReader, "context", ContextFactory),
    (ContextVector, "vector", VectorFactory),
    (Norm, "norm", NormFactory),
    (FeedForward, "mlp", MLPFactory),
]
"""Contracts whose classes are tested in a block: in which slot, and made by which factory."""

KINDS: dict[type, PartKind] = {
    FlowBlock: PartKind(blocks, BlockFactory, {"transform": "pretzel.flow.AffineSoftplus"}),
    **{
        base: PartKind(partial(in_block, slot, factory), factory)
        for base, slot, factory in IN_BLOCK
    },
    Transform: PartKind(alone),
    Permutation: PartKind(alone),
    Guidance: PartKind(alone),
    Denoiser: PartKind(denoisers),
    Sampler: PartKind(alone),
    Interleaving: PartKind(interleavings, InterleavingFactory),
    SkipConnection: PartKind(skips, SkipFactory),
    Adapter: PartKind(adapters, AdapterFactory),
    VisionInput: PartKind(vision_inputs),
    **dict.fromkeys(
        (Split, LatentSpace, VLMStream, Condition, FeatureEncoder, Medium), PartKind(alone)
    ),
    Bottleneck: PartKind(bottlenecks, BottleneckFactory),
    FeatureDecoder: PartKind(latent_decoders, FeatureDecoderFactory),
    PixelDecoder: PartKind(latent_decoders, PixelDecoderFactory),
}


def kind_of(part: type) -> PartKind:
    """Return the kind of a class.

    Raises:
        UserError: If no laws are known for it, or its contract says why there are none.
    """
    name = f"{part.__module__}.{part.__qualname__}"
    if reason := getattr(part, "no_laws", ""):
        raise UserError(f"no laws apply to {name}: {reason}")
    if laws_module(part) is not None:
        return PartKind(alone)
    for base, kind in KINDS.items():
        if issubclass(part, base):
            return kind
    names = ", ".join(base.__name__ for base in KINDS)
    raise UserError(
        f"no laws are known for {name}: it is none of {names}, and its contract names no module of "
        "laws"
    )
