"""A check of a metric where the answer is known."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, rand

from pretzel.rng import stream


@dataclass(frozen=True, kw_only=True)
class Canary:
    """One check of one metric.

    Attributes:
        metric: Name of its value.
        check: What was measured.
        expected: What the value must be, in words.
        value: The value.
        passed: Whether it is so.
    """

    metric: str
    check: str
    expected: str
    value: float
    passed: bool


def noise_like(images: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return uniform noise in [-1, 1], always the same."""
    noise = rand(images.shape, generator=stream("canary", "noise")) * 2 - 1
    return noise.to(images.device)
