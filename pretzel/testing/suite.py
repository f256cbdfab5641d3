"""The laws of every kind of part, and one call that tries them all."""

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from pretzel.errors import UserError
from pretzel.flow import (
    AFBlock,
    AutoregressiveBlock,
    Conditioner,
    FlowBlock,
    Permutation,
    Transform,
)
from pretzel.flow.context import ContextReader, ContextVector
from pretzel.flow.layer_split import Split
from pretzel.flow.mlp import FeedForward
from pretzel.flow.norms import Norm
from pretzel.flow.positions import Positions
from pretzel.flow.start_token import Start
from pretzel.interleave import Adapter, Interleaving, SkipConnection, VisionInput
from pretzel.latent import LatentSpace
from pretzel.latent.fae import Bottleneck, FeatureDecoder, PixelDecoder
from pretzel.latent.features import FeatureEncoder
from pretzel.media import Medium
from pretzel.model import Pretzel
from pretzel.sampling import Denoiser, Guidance, Sampler
from pretzel.tarflow.condition import Condition
from pretzel.testing.deviation import Deviation, LawBroken
from pretzel.testing.discovery import concrete_classes, contracts_outside, import_all, raised_at
from pretzel.testing.global_state import draws_in_training
from pretzel.testing.law_case import (
    ALL_STATES,
    INITIAL,
    INITIAL_EVAL,
    PERTURBED,
    PERTURBED_EVAL,
    Case,
    State,
)
from pretzel.testing.laws import (
    adapters,
    autoregressive,
    blocks,
    conditioners,
    conditions,
    contexts,
    denoisers,
    fae_parts,
    features,
    generation,
    gradients,
    guidance,
    latents,
    media,
    models,
    permutations,
    positions,
    randomness,
    samplers,
    skips,
    splits,
    state,
    temperatures,
    transforms,
    vision_inputs,
    vlm_streams,
    zero_start,
)
from pretzel.vlm.base import VLMStream

LawFunction = Callable[[Case[Any]], Deviation]


@dataclass(frozen=True, kw_only=True)
class Law:
    """A mathematical rule that every part of a kind obeys.

    Attributes:
        name: Module and function.
        meaning: One sentence: what a part that breaks it does wrong.
        function: Returns the worst error; raises an ``AssertionError`` beyond the tolerance.
        states: States of a part in which it is tried.
        holds_under_dropout: Whether it is also tried, in training mode, on a part that draws random
            numbers there.
    """

    name: str
    meaning: str
    function: LawFunction
    states: tuple[State, ...]
    holds_under_dropout: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one law on one part.

    Attributes:
        law: The law.
        state: State of the part in which it was tried.
        passed: Whether it holds.
        detail: The worst error and where it is, or the exception and the line that raised it.
        cause: The exception.
    """

    law: Law
    state: State
    passed: bool
    detail: str
    cause: Exception | None = None

    def __str__(self) -> str:
        verdict = "pass" if self.passed else f"FAIL  {self.law.meaning}"
        return f"{self.law.name} [{self.state}]: {verdict}  ({self.detail})"


def laws_in(module: ModuleType, states: tuple[State, ...] = ALL_STATES) -> list[Law]:
    """Return the public functions of a module that take a case and return a deviation.

    They are tried in ``states``, but for those that say otherwise.
    """
    return [
        Law(
            name=f"{module.__name__.rsplit('.', 1)[-1]}.{name}",
            meaning=(inspect.getdoc(function) or "").split("\n\n")[0],
            function=function,
            states=vars(function).get("states", states),
            holds_under_dropout="holds_under_dropout" in vars(function),
        )
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
        and list(inspect.signature(function).parameters) == ["case"]
    ]


KINDS: tuple[type, ...] = (
    FlowBlock, Conditioner, Positions, Start, ContextReader, ContextVector, Norm, FeedForward,
    Transform, Permutation, Guidance, Denoiser, Sampler, Interleaving, Split, LatentSpace,
    VLMStream, SkipConnection, Adapter, VisionInput, Condition, FeatureEncoder, Bottleneck,
    FeatureDecoder, PixelDecoder, Medium,
)  # fmt: skip
"""Contracts of the model library; from conditioners to MLPs they are tested in a block, by its laws
and their own, an interleaving in a model.

A contract outside of it names a module in a class attribute ``laws``: that has the laws of its kind
(``LAWS``) and the cases of the parts that are shipped (``CASES``).
"""

LAWS_OF_ALL = laws_in(randomness, (INITIAL,))
"""Laws of every part, whatever its contract."""

GENERATING = (INITIAL_EVAL, PERTURBED_EVAL)
"""Nothing is generated in training mode."""

LAWS: dict[type, list[Law]] = {
    FlowBlock: [*laws_in(blocks), *laws_in(gradients), *laws_in(state), *laws_in(contexts)],
    AutoregressiveBlock: [*laws_in(autoregressive), *laws_in(temperatures)],
    AFBlock: [*laws_in(conditioners), *laws_in(positions)],
    Transform: laws_in(transforms),
    Permutation: laws_in(permutations),
    Guidance: laws_in(guidance),
    Denoiser: laws_in(denoisers),
    Sampler: laws_in(samplers),
    Pretzel: [
        *laws_in(models, (INITIAL, PERTURBED)),
        *laws_in(zero_start),
        *laws_in(generation, GENERATING),
    ],
    Split: laws_in(splits),
    LatentSpace: laws_in(latents, (INITIAL,)),  # nothing of a frozen part can be perturbed
    Medium: laws_in(media, (INITIAL,)),
    VLMStream: laws_in(vlm_streams, (INITIAL,)),
    SkipConnection: laws_in(skips),
    Adapter: laws_in(adapters),
    VisionInput: laws_in(vision_inputs),
    Condition: laws_in(conditions),
    FeatureEncoder: laws_in(features, (INITIAL,)),
    **{kind: laws_in(fae_parts) for kind in (Bottleneck, FeatureDecoder, PixelDecoder)},
}

EXERCISES: dict[type, Callable[[Any], None]] = {
    FlowBlock: blocks.exercise,
    Denoiser: denoisers.exercise,
    Pretzel: models.exercise,
    SkipConnection: skips.exercise,
    Adapter: adapters.exercise,
    **{kind: fae_parts.exercise for kind in (Bottleneck, FeatureDecoder, PixelDecoder)},
}
"""How a part that may draw random numbers in training mode is run, to find out whether it does."""

LARGE = 30
"""Positions from which a flow block is tried in one state alone, perturbed and in evaluation mode:
errors of size show there, and the others cost time."""


def laws_module(part: type) -> ModuleType | None:
    """Return the module of laws that a contract of the class names; None for the library's own."""
    names = [vars(base)["laws"] for base in part.__mro__ if "laws" in vars(base)]
    return importlib.import_module(names[0]) if names else None


def has_laws(part: type) -> bool:
    """Return whether laws are known for a class."""
    return issubclass(part, KINDS) or laws_module(part) is not None


def parts_of(package: str) -> list[type]:
    """Return every concrete class of a package that has laws, kind by kind.

    Raises:
        UserError: If a module of the package cannot be imported.
    """
    parts: list[type] = []
    import_all(package)
    for kind in (*KINDS, *contracts_outside(f"{package}.")):
        parts += concrete_classes(kind, package)
    return [*dict.fromkeys(parts)]


def laws_of(part: object) -> list[Law]:
    """Return the laws of the kinds of parts that ``part`` is.

    Raises:
        UserError: If no laws are known for it.
    """
    module = laws_module(type(part))
    laws = LAWS if module is None else module.LAWS
    part_laws = [law for kind, own in laws.items() if isinstance(part, kind) for law in own]
    if not part_laws:
        kinds = ", ".join(kind.__name__ for kind in LAWS)
        raise UserError(f"laws exist for {kinds} (an interleaving: in a Pretzel), got {part!r}")
    return [*part_laws, *LAWS_OF_ALL]


def try_laws(factory: Callable[[], object]) -> list[Outcome]:
    """Try every law of a part, in every state in which it says something.

    Args:
        factory: Builds the part; called again whenever a law may find it changed.
    """
    return [try_law(law, case) for law, case in cases_of(factory)]


def cases_of(factory: Callable[[], object]) -> list[tuple[Law, Case[Any]]]:
    """Return the laws of the part that a factory builds, each with the case of every state.

    A part without parameters has one state. The factory builds a part anew for every law; flow
    blocks, which no law of theirs changes, only once: building them takes as long as the laws.

    Raises:
        UserError: If no laws are known for the part.
    """
    part = factory()
    laws = laws_of(part)
    block = part if isinstance(part, FlowBlock) else None
    states: tuple[State, ...] = ALL_STATES if isinstance(part, nn.Module) else (INITIAL,)
    if block is not None and math.prod(block.grid) >= LARGE:
        states = (PERTURBED_EVAL,)
    runs = [run for kind, run in EXERCISES.items() if isinstance(part, kind)]
    draws = isinstance(part, nn.Module) and any(draws_in_training(part, run) for run in runs)
    shared: dict[bool, dict[Any, Any]] = {False: {}, True: {}}
    cases = [
        Case[Any](
            factory=factory,
            **state._asdict(),
            draws=draws,
            built=None if block is None else shared[state.perturbed],
        )
        for state in states
    ]
    return [
        (law, case)
        for law in laws
        for case in cases
        if len(states) == 1 or case.state in law.states
    ]


def try_law(law: Law, case: Case[Any]) -> Outcome:
    """Try one law; a part that cannot even be run breaks it."""
    cause: Exception | None = None
    try:
        if case.draws and not (case.evaluation or law.holds_under_dropout):
            detail = "draws random numbers in training: judged in evaluation mode"
        else:
            detail = str(law.function(case))
    except LawBroken as error:
        detail, cause = str(error), error
    except Exception as error:
        detail, cause = f"{type(error).__name__}: {error}{raised_at(error)}", error
    if cause is not None and case.built is not None:
        case.built.clear()  # a broken part may be in any state
    return Outcome(law=law, state=case.state, passed=cause is None, detail=detail, cause=cause)


def run_laws(factory: Callable[[], object]) -> list[Outcome]:
    """Hold a part to all its laws; this is what a plug-in's test calls.

    Args:
        factory: Builds the part: a flow block, transform, permutation, guidance, denoiser, or a
            Pretzel around an interleaving (:func:`pretzel.testing.tiny_pretzel`).

    Returns:
        The outcome of every law.

    Raises:
        AssertionError: Naming every broken law, its meaning, the worst error and where it is.
    """
    outcomes = try_laws(factory)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        lines = "\n".join(f"  {outcome}" for outcome in failed)
        message = f"{len(failed)} of {len(outcomes)} laws are broken:\n{lines}"
        raise LawBroken(message) from failed[0].cause
    return outcomes
