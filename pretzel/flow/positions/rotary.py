"""Rotary position embedding (RoPE, arXiv 2104.09864): tables, angles, rotation."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.conditioner import Rotation
from pretzel.flow.sizes import check_sizes
from pretzel.typing import Float, Tensor


class Frequencies(nn.Module, ABC):
    """A table of rotary frequencies on the device of the module, never rounded with its weights.

    An angle of thousands of radians in bfloat16 is off by more than a turn. The table is therefore
    computed anew, in the precision it needs, whenever the module moves or is cast.

    Attributes:
        frequencies: Angle of each channel pair at 1 on each axis, in radians.
    """

    frequencies: Float[Tensor, "axes pairs"]

    @abstractmethod
    def table(self, dtype: torch.dtype) -> Float[Tensor, "axes pairs"]:
        """Return the frequencies, in at least float32, for a module of ``dtype``."""

    def make_table(self) -> None:
        """Register the table; last in a constructor."""
        table = self.table(torch.get_default_dtype())
        self.register_buffer("frequencies", table, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frequencies":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        moved = self.frequencies
        self.frequencies = self.table(moved.dtype).to(moved.device)
        return self


class AxialRotary(Frequencies):
    """Rotary position embedding over several axes (RoPE, arXiv 2104.09864, n-D).

    The channel pairs of a head are shared equally among the axes; the remainder goes to the first
    axes. Pair (j, j + e/2) of a head of width e rotates by position times frequency.

    Args:
        head_dim: Width e of a head; even, and at least two channels for each axis.
        num_axes: Axes of a position.
        theta: Base of the geometric frequencies; small grids want a small one.

    Raises:
        UserError: If the head has too few pairs, or ``theta`` is not positive and finite.
    """

    def __init__(self, *, head_dim: int, num_axes: int, theta: float = 100.0) -> None:
        super().__init__()
        check_sizes(num_axes=num_axes)
        check_theta(theta)
        if head_dim % 2 or head_dim // 2 < num_axes:
            raise UserError(
                f"head_dim must be even and at least {2 * num_axes} for {num_axes} position axes, "
                f"got {head_dim}"
            )
        self.pairs = head_dim // 2
        self.num_axes = num_axes
        self.theta = theta
        self.make_table()

    def table(self, dtype: torch.dtype) -> Float[Tensor, "axes pairs"]:
        """Return the frequencies of each axis, 0 at the pairs of the others; rounded to float32."""
        frequencies = torch.zeros(self.num_axes, self.pairs, dtype=torch.float32)
        start = 0
        for axis in range(self.num_axes):
            count = self.pairs // self.num_axes + (axis < self.pairs % self.num_axes)
            exponents = torch.arange(count, dtype=torch.float32) / count
            frequencies[axis, start : start + count] = self.theta**-exponents
            start += count
        return frequencies.to(torch.promote_types(dtype, torch.float32))

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        """Return cosines and signed sines of positions [*b, l, a], ready for :func:`rotate`."""
        # Not a matrix product: autocast would round angles of hundreds of radians to bfloat16.
        angles = positions.unsqueeze(-1).to(self.frequencies.dtype) * self.frequencies
        return rotation_of(angles.sum(dim=-2), dtype)


def check_theta(theta: float) -> None:
    """Refuse a base without powers: it must be positive and finite."""
    if not 0 < theta < math.inf:
        raise UserError(f"theta must be positive and finite, got {theta}")


def rotation_of(angles: Float[Tensor, "*b l p"], dtype: torch.dtype) -> Rotation:
    """Return cosines and signed sines [*b, 1, l, e] of the angle of every channel pair."""
    cosine, sine = angles.cos(), angles.sin()
    cosine = torch.cat([cosine, cosine], dim=-1).to(dtype)
    sine = torch.cat([-sine, sine], dim=-1).to(dtype)
    return cosine.unsqueeze(-3), sine.unsqueeze(-3)


def rotate(
    x: Float[Tensor, "b heads l e"],
    cosine: Float[Tensor, "*b 1 l e"],
    sine: Float[Tensor, "*b 1 l e"],
) -> Float[Tensor, "b heads l e"]:
    """Rotate the channel pairs (j, j + e/2) of each head."""
    if x.requires_grad and torch.is_grad_enabled():
        rotated: Tensor = _Rotation.apply(x, cosine, sine)
        return rotated
    return torch.addcmul(x * cosine, x.roll(x.shape[-1] // 2, dims=-1), sine)


class _Rotation(torch.autograd.Function):
    """The rotation in two passes over memory instead of three, backward in two instead of four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(cosine, sine)
        half = x.shape[-1] // 2
        out = x * cosine
        out[..., :half].addcmul_(x[..., half:], sine[..., :half])
        out[..., half:].addcmul_(x[..., :half], sine[..., half:])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        cosine, sine = ctx.saved_tensors
        # A rotation is orthogonal: its transpose is the rotation by the opposite angle.
        back: Tensor = _Rotation.apply(gradients[0], cosine, -sine)
        return back, None, None
