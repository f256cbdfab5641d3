"""Case of a law: a part in one state (initial or perturbed, training or evaluation mode)."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import nn

from pretzel.rng import stream
from pretzel.typing import Float, Tensor

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

FP64 = 1e-10
FP32 = 1e-4
BF16 = 0.1
_PLAIN = (int, float, str)


class State(NamedTuple):
    """State in which a part is tested.

    Attributes:
        perturbed: Whether every trainable parameter is moved from its initial value. At zero
            initialisation a block that sees the future passes every law.
        evaluation: Whether it is in evaluation mode. A leak that opens there makes an arm win.
    """

    perturbed: bool
    evaluation: bool = False

    def __str__(self) -> str:
        name = "perturbed" if self.perturbed else "initial"
        return f"{name}, eval" if self.evaluation else name


INITIAL, PERTURBED = State(False), State(True)
INITIAL_EVAL, PERTURBED_EVAL = State(False, True), State(True, True)
ALL_STATES = (INITIAL, PERTURBED, INITIAL_EVAL, PERTURBED_EVAL)


def tried_in(*states: State) -> Callable[[F], F]:
    """Mark a law that is tried in these states alone: it says nothing in the others, or is dear."""

    def mark(law: F) -> F:
        vars(law)["states"] = states
        return law

    return mark


def holds_under_dropout(law: F) -> F:
    """Mark a law that also holds in training mode for parts that draw random numbers there."""
    vars(law)["holds_under_dropout"] = True
    return law


@dataclass(frozen=True, kw_only=True)
class Case(Generic[T]):
    """A part for a law to test, in one state.

    Attributes:
        factory: Builds the part, in the same configuration each time.
        perturbed: Whether every trainable parameter is moved from its initial value.
        evaluation: Whether the part is in evaluation mode.
        draws: Whether the part draws random numbers in training mode, as dropout does.
        built: Parts of seed 0 that laws share, by precision; None where a law may change one.
    """

    factory: Callable[[], T]
    perturbed: bool
    evaluation: bool = False
    draws: bool = False
    built: dict[torch.dtype, T] | None = None

    @property
    def state(self) -> State:
        """The state of the part."""
        return State(self.perturbed, self.evaluation)

    def build(self, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> T:
        """Return the part; equal seeds give equal parameters, in any precision.

        Args:
            dtype: Precision of the parameters.
            seed: Seed of the initialisation and the perturbation.
        """
        if self.built is not None and seed == 0 and dtype in self.built:
            return self._in_mode(self.built[dtype])
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed accelerators too, at half the cost of a small part
            torch.default_generator.manual_seed(seed)
            part = self.factory()
        if isinstance(part, nn.Module):
            part.to(torch.float64)
            if self.perturbed:
                perturb(part, seed)
            part.to(dtype)
        if self.built is not None and seed == 0:
            self.built[dtype] = part
        return self._in_mode(part)

    def _in_mode(self, part: T) -> T:
        """Switch a part to the mode of the case; training and evaluation share what is built."""
        if isinstance(part, nn.Module) and part.training == self.evaluation:
            part.train(not self.evaluation)
        return part


def perturb(module: nn.Module, seed: int = 0) -> None:
    """Move every trainable parameter, matrices by 0.5 / sqrt(fan-in), vectors by 0.1."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            generator = stream(seed, "perturb", name)
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            scale = 0.5 * parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.add_((scale * noise).to(parameter))


def normal(*shape: int, key: str = "x") -> Float[Tensor, "..."]:
    """Return standard normal float64 numbers, the same for the same key."""
    return torch.randn(shape, generator=stream("laws", key), dtype=torch.float64)


def describe(factory: object) -> str:
    """Return a short description of a factory: the arguments of a ``partial``."""
    if not isinstance(factory, partial):
        return ""
    values = [short(value) for value in factory.args]
    return ", ".join([*values, *(f"{k}={short(v)}" for k, v in factory.keywords.items())])


def short(value: object) -> str:
    """Return a short description of an argument, of a part by its plain arguments."""
    if isinstance(value, partial):
        return f"{short(value.func)}({describe(value)})"
    if isinstance(value, type) or (callable(value) and hasattr(value, "__name__")):
        return str(value.__name__)
    if value is None or isinstance(value, (*_PLAIN, tuple, list, dict)):
        return repr(value)
    arguments = inspect.signature(type(value).__init__).parameters
    plain = {k: v for k, v in vars(value).items() if k in arguments and isinstance(v, _PLAIN)}
    return f"{type(value).__name__}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"
