"""Deviations: the largest error between values that must be equal, and where it is."""

import math
from dataclasses import dataclass

import torch

from pretzel.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """The worst error of a law.

    Attributes:
        what: The compared quantity.
        error: Largest absolute difference; not a number counts as infinite.
        tolerance: Largest error that the law allows.
        where: Index of the worst element, or the name of the worst parameter.
    """

    what: str
    error: float
    tolerance: float
    where: str = ""

    def __str__(self) -> str:
        if not (self.error or self.tolerance or self.where):
            return self.what  # nothing was measured
        place = f" at {self.where}" if self.where else ""
        return f"{self.what}: worst error {self.error:.2g}{place} (tolerance {self.tolerance:.2g})"


class LawBroken(AssertionError):
    """A law does not hold; the message names the worst error and where it is."""


def check(deviation: Deviation) -> Deviation:
    """Return a deviation within its tolerance; raise ``LawBroken`` for one beyond it."""
    if not deviation.error <= deviation.tolerance:
        raise LawBroken(str(deviation))
    return deviation


def require(condition: bool, what: str) -> None:
    """Raise ``LawBroken`` unless a condition that has no error to measure is met."""
    if not condition:
        raise LawBroken(what)


def within(
    actual: Float[Tensor, "..."], expected: Float[Tensor, "..."], tolerance: float, what: str
) -> Deviation:
    """Compare two tensors element by element.

    Args:
        actual: Result of the part.
        expected: Correct result; errors are relative to the larger of 1 and its largest absolute
            value.
        tolerance: Largest error allowed.
        what: Name of the compared quantity, for the message.

    Raises:
        LawBroken: If the shapes differ or an element is too far off or not finite.
    """
    shape, right = tuple(actual.shape), tuple(expected.shape)
    require(shape == right, f"{what}: shape {shape} instead of {right}")
    if not expected.numel():
        return worst(expected, tolerance, what)
    scale = max(1.0, float(expected.detach().abs().max()))
    difference = (actual.detach().to(expected) - expected.detach()).abs() / scale
    return check(worst(difference.nan_to_num(nan=math.inf), tolerance, what))


def worst(errors: Float[Tensor, "..."], tolerance: float, what: str) -> Deviation:
    """Return the deviation of the largest of non-negative errors."""
    if not errors.numel():
        return Deviation(what=what, error=0.0, tolerance=tolerance)
    index = [int(i) for i in torch.unravel_index(errors.argmax(), errors.shape)]
    return Deviation(what=what, error=float(errors.max()), tolerance=tolerance, where=str(index))


def unmeasured(what: str) -> Deviation:
    """Return the deviation of a law that holds without an error to measure."""
    return Deviation(what=what, error=0.0, tolerance=0.0)


def worst_of(*deviations: Deviation) -> Deviation:
    """Return the deviation that comes closest to, or furthest beyond, its tolerance."""
    return max(deviations, key=lambda d: d.error / d.tolerance if d.tolerance else d.error)
