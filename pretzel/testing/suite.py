"""The laws of every kind of part, and one call that tries them all."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pretzel.errors import UserError
from pretzel.flow import (
    AFBlock,
    AutoregressiveBlock,
    Conditioner,
    FlowBlock,
    Permutation,
    Transform,
)
from pretzel.interleave import Interleaving
from pretzel.model import Pretzel
from pretzel.sampling import Denoiser, Guidance, Sampler
from pretzel.testing.deviation import Deviation, LawBroken
from pretzel.testing.discovery import raised_at
from pretzel.testing.law_case import Case
from pretzel.testing.laws import (
    autoregressive,
    blocks,
    conditioners,
    denoisers,
    generation,
    guidance,
    models,
    permutations,
    samplers,
    temperatures,
    transforms,
)

LawFunction = Callable[[Case[Any]], Deviation]


@dataclass(frozen=True, kw_only=True)
class Law:
    """A mathematical rule that every part of a kind obeys.

    Attributes:
        name: Module and function.
        meaning: One sentence: what a part that breaks it does wrong.
        function: Returns the worst error; raises an ``AssertionError`` beyond the tolerance.
    """

    name: str
    meaning: str
    function: LawFunction


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one law on one part.

    Attributes:
        law: The law.
        perturbed: Whether it was tried with every parameter perturbed, or at initialisation.
        passed: Whether it holds.
        detail: The worst error and where it is, or the exception and the line that raised it.
        cause: The exception.
    """

    law: Law
    perturbed: bool
    passed: bool
    detail: str
    cause: Exception | None = None

    @property
    def state(self) -> str:
        """The state of the parameters: "initial" or "perturbed"."""
        return state_name(self.perturbed)

    def __str__(self) -> str:
        verdict = "pass" if self.passed else f"FAIL  {self.law.meaning}"
        return f"{self.law.name} [{self.state}]: {verdict}  ({self.detail})"


def state_name(perturbed: bool) -> str:
    """Return the name of a state of the parameters."""
    return "perturbed" if perturbed else "initial"


def _laws(module: ModuleType) -> list[Law]:
    """Return the public functions of a module that take a case and return a deviation."""
    return [
        Law(
            name=f"{module.__name__.rsplit('.', 1)[-1]}.{name}",
            meaning=(inspect.getdoc(function) or "").split("\n\n")[0],
            function=function,
        )
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
        and list(inspect.signature(function).parameters) == ["case"]
    ]


KINDS: tuple[type, ...] = (
    FlowBlock, Conditioner, Transform, Permutation, Guidance, Denoiser, Sampler, Interleaving,
)  # fmt: skip
"""Contracts that have laws; a conditioner is tested in a block, an interleaving in a model."""

LAWS: dict[type, list[Law]] = {
    FlowBlock: _laws(blocks),
    AutoregressiveBlock: [*_laws(autoregressive), *_laws(temperatures)],
    AFBlock: _laws(conditioners),
    Transform: _laws(transforms),
    Permutation: _laws(permutations),
    Guidance: _laws(guidance),
    Denoiser: _laws(denoisers),
    Sampler: _laws(samplers),
    Pretzel: [*_laws(models), *_laws(generation)],
}


def laws_of(part: object) -> list[Law]:
    """Return the laws of the kinds of parts that ``part`` is.

    Raises:
        UserError: If no laws are known for it.
    """
    part_laws = [law for kind, laws in LAWS.items() if isinstance(part, kind) for law in laws]
    if not part_laws:
        kinds = ", ".join(kind.__name__ for kind in LAWS)
        raise UserError(f"laws exist for {kinds} (an interleaving: in a Pretzel), got {part!r}")
    return part_laws


def try_laws(factory: Callable[[], object]) -> list[Outcome]:
    """Try every law of a part, at initialisation and with every parameter perturbed.

    Args:
        factory: Builds the part; called again whenever a law may find it changed.
    """
    part = factory()
    cases = cases_of(part, factory)
    return [try_law(law, case) for law in laws_of(part) for case in cases]


def cases_of(part: object, factory: Callable[[], object]) -> list[Case[Any]]:
    """Return a part that a factory has built at initialisation and perturbed, for all laws.

    The factory builds it anew for every law; flow blocks, which no law of theirs changes, only
    once: building them takes as long as the laws.
    """
    is_shared = isinstance(part, FlowBlock)
    return [
        Case(factory=factory, perturbed=perturbed, built={} if is_shared else None)
        for perturbed in (False, True)
    ]


def try_law(law: Law, case: Case[Any]) -> Outcome:
    """Try one law; a part that cannot even be run breaks it."""
    cause: Exception | None = None
    try:
        detail = str(law.function(case))
    except LawBroken as error:
        detail, cause = str(error), error
    except Exception as error:
        detail, cause = f"{type(error).__name__}: {error}{raised_at(error)}", error
    if cause is not None and case.built is not None:
        case.built.clear()  # a broken part may be in any state
    return Outcome(
        law=law, perturbed=case.perturbed, passed=cause is None, detail=detail, cause=cause
    )


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
