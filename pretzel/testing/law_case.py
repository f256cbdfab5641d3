"""A part on trial: how it is built, in which precision, at initialisation or perturbed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from pretzel.rng import stream
from pretzel.typing import Float, Tensor

T = TypeVar("T")

FP64 = 1e-10
FP32 = 1e-4
BF16 = 0.1


@dataclass(frozen=True, kw_only=True)
class Case(Generic[T]):
    """What a law is given.

    Attributes:
        factory: Builds the part, the same configuration each time.
        perturbed: Whether every trainable parameter has left its initial value. At zero
            initialisation a block that sees the future passes every law.
        built: The parts of seed 0 so far, by precision, where laws may share them; None where a
            law may change one.
    """

    factory: Callable[[], T]
    perturbed: bool
    built: dict[torch.dtype, T] | None = None

    def build(self, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> T:
        """Return the part; equal seeds give equal parameters, in any precision.

        Args:
            dtype: Precision of the parameters.
            seed: Seed of the initialisation and the perturbation.
        """
        if self.built is not None and seed == 0 and dtype in self.built:
            return self.built[dtype]
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
        return part


def perturb(module: nn.Module, seed: int = 0) -> None:
    """Move every trainable parameter, matrices by 0.5 / sqrt(fan-in), vectors by 0.1."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            drawn = torch.randn(
                parameter.shape, generator=stream(seed, "perturb", name), dtype=torch.float64
            )
            scale = 0.5 * parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.add_((scale * drawn).to(parameter))


def normal(*shape: int, key: str = "x") -> Float[Tensor, "..."]:
    """Return standard normal float64 numbers, the same for the same key."""
    return torch.randn(shape, generator=stream("laws", key), dtype=torch.float64)
