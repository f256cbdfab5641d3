"""The kinds of parts that have laws, and the small sizes in which a class of each is tested.

A new kind is one function and one line of :data:`KINDS` here, and its laws in
:data:`pretzel.testing.suite.LAWS`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

from pretzel.errors import UserError
from pretzel.flow.af_block import AFBlock
from pretzel.flow.block import BlockFactory, FlowBlock
from pretzel.flow.conditioner import Conditioner, ConditionerFactory
from pretzel.flow.permutations import ColumnMajor, FixedRandom, Flip, Permutation, Raster
from pretzel.flow.transforms import AffineSoftplus, Transform
from pretzel.interleave.base import Interleaving, InterleavingFactory
from pretzel.sampling.denoisers import Denoiser
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.samplers import Sampler
from pretzel.testing.discovery import one_line, raised_at
from pretzel.testing.laws.denoisers import CHANNELS, POSITIONS
from pretzel.testing.tiny_model import tiny_pretzel

_PLAIN = (int, float, str)


@runtime_checkable
class Buildable(Protocol):
    """A class with its own arguments; those that a parent owns are given to build it."""

    @property
    def part(self) -> type:
        """The class."""
        ...

    @property
    def accepts(self) -> frozenset[str]:
        """Names of the parameters that its constructor has."""
        ...

    def __call__(self, **arguments: object) -> object:
        """Build the part, and anew every part that it is made of."""
        ...

    def build(self, **arguments: object) -> object:
        """Build the part once.

        Raises:
            UserError: If the constructor raises anything, in one sentence.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LawTrial:
    """One configuration in which a class is tested.

    Attributes:
        label: Sizes of the configuration; empty where there is only one.
        factory: Builds the part for the laws, the same each time.
        refused: Reason why the class does not take this configuration; empty where it does.
    """

    label: str
    factory: Callable[[], object]
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class PartKind:
    """How the classes of one kind are tested.

    Attributes:
        trials: Returns the trials of a class with its own arguments parsed.
        factory: The factory protocol that such a class implements in YAML, if any: a parent gives
            the parameters of its call.
        defaults: Classes for arguments that are required in YAML but not for a check.
    """

    trials: Callable[[Buildable], list[LawTrial]]
    factory: type | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)

    @property
    def parent_parameters(self) -> frozenset[str]:
        """Names of the parameters that a parent gives."""
        if self.factory is None:
            return frozenset()
        return frozenset(inspect.signature(self.factory.__call__).parameters) - {"self"}


def alone(make: Buildable) -> list[LawTrial]:
    """Return one trial of a part that depends on no sizes."""
    make.build()
    return [LawTrial(label="", factory=make)]


def blocks(make: Buildable) -> list[LawTrial]:
    """Return trials in several channels, grids, depths and orders.

    Sizes that the constructor does not have are left out, and sizes that it refuses by a
    ``ValueError`` are skipped.

    Raises:
        UserError: If it refuses all of them, or raises anything else.
    """
    sizes: list[dict[str, object]] = [
        {"channels": 3, "grid": (2, 3), "num_layers": 1, "permutation": Raster()},
        {"channels": 2, "grid": (3, 3), "num_layers": 2, "permutation": Flip()},
        {"channels": 3, "grid": (3, 2), "num_layers": 2, "permutation": ColumnMajor()},
        {"channels": 4, "grid": (2, 2), "num_layers": 1, "permutation": FixedRandom(seed=0)},
    ]
    trials: dict[str, LawTrial] = {}
    refusal: UserError | None = None
    for candidate in sizes:
        arguments = {name: value for name, value in candidate.items() if name in make.accepts}
        label = ", ".join(f"{name}={_short(value)}" for name, value in arguments.items())
        refused = ""
        try:
            make.build(**arguments)
        except UserError as error:
            if not isinstance(error.__cause__, ValueError):
                raise
            refusal, refused = error, str(error)
        trials[label] = LawTrial(label=label, factory=partial(make, **arguments), refused=refused)
    if refusal and all(trial.refused for trial in trials.values()):
        raise refusal
    return list(trials.values())


def conditioners(make: Buildable) -> list[LawTrial]:
    """Return trials inside an otherwise plain block, in several sizes."""

    def block(grid: tuple[int, ...], num_layers: int, permutation: Permutation) -> AFBlock:
        def conditioner(num_layers: int) -> Conditioner[Any]:
            built = make.build(num_layers=num_layers)
            assert isinstance(built, Conditioner)
            return built

        return AFBlock(
            3, grid, num_layers, permutation,
            transform=AffineSoftplus(), conditioner=conditioner,
        )  # fmt: skip

    orders: list[tuple[tuple[int, ...], int, Permutation]] = [
        ((2, 3), 1, Raster()),
        ((3, 3), 2, Flip()),
        ((6,), 1, FixedRandom(seed=0)),
    ]
    return [
        built_trial(
            make,
            f"in an AFBlock, grid={grid}, num_layers={num_layers}",
            partial(block, grid, num_layers, permutation),
        )
        for grid, num_layers, permutation in orders
    ]


def denoisers(make: Buildable) -> list[LawTrial]:
    """Return trials on the latents of the laws, as a row and as a square."""

    def fitted(grid: tuple[int, ...]) -> Denoiser:
        denoiser = make.build()
        assert isinstance(denoiser, Denoiser)
        denoiser.fit_to(CHANNELS, grid)
        return denoiser

    return [
        built_trial(make, f"channels={CHANNELS}, grid={grid}", partial(fitted, grid))
        for grid in ((POSITIONS,), (2, POSITIONS // 2))
    ]


def interleavings(make: Buildable) -> list[LawTrial]:
    """Return one trial inside the smallest real model."""

    def interleaving(channels: int, hidden_size: int, width: int) -> Interleaving:
        built = make.build(channels=channels, hidden_size=hidden_size, width=width)
        assert isinstance(built, Interleaving)
        return built

    return [built_trial(make, "in a tiny Pretzel", partial(tiny_pretzel, interleaving))]


def built_trial(make: Buildable, label: str, factory: Callable[[], object]) -> LawTrial:
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
    return LawTrial(label=label, factory=factory)


KINDS: dict[type, PartKind] = {
    FlowBlock: PartKind(
        trials=blocks,
        factory=BlockFactory,
        defaults={"transform": "pretzel.flow.AffineSoftplus"},
    ),
    Conditioner: PartKind(trials=conditioners, factory=ConditionerFactory),
    Transform: PartKind(trials=alone),
    Permutation: PartKind(trials=alone),
    Guidance: PartKind(trials=alone),
    Denoiser: PartKind(trials=denoisers),
    Sampler: PartKind(trials=alone),
    Interleaving: PartKind(trials=interleavings, factory=InterleavingFactory),
}


def kind_of(part: type) -> PartKind:
    """Return the kind of a class.

    Raises:
        UserError: If no laws are known for it.
    """
    for base, kind in KINDS.items():
        if issubclass(part, base):
            return kind
    names = ", ".join(base.__name__ for base in KINDS)
    raise UserError(
        f"no laws are known for {part.__module__}.{part.__qualname__}: it is none of {names}"
    )


def describe(factory: object) -> str:
    """Return a short description of a factory: the arguments of a ``partial``."""
    if not isinstance(factory, partial):
        return ""
    values = [_short(value) for value in factory.args]
    return ", ".join([*values, *(f"{k}={_short(v)}" for k, v in factory.keywords.items())])


def _short(value: object) -> str:
    if isinstance(value, partial):
        inner = describe(value)
        return f"{_short(value.func)}({inner})"
    if isinstance(value, type) or (callable(value) and hasattr(value, "__name__")):
        return str(value.__name__)
    if value is None or isinstance(value, (*_PLAIN, tuple, list, dict)):
        return repr(value)
    arguments = inspect.signature(type(value).__init__).parameters
    plain = {k: v for k, v in vars(value).items() if k in arguments and isinstance(v, _PLAIN)}
    return f"{type(value).__name__}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"
