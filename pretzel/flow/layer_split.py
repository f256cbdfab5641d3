"""Splits of a budget of layers or parameters between shallow blocks and the deep block."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Layers of each shallow block, data side first (empty for none), and of the deep block."""

    shallow: tuple[int, ...]
    deep: int


@dataclass(frozen=True, kw_only=True)
class LayerCosts:
    """Parameters of one layer of a shallow block (0 where there is none), and of the deep block."""

    shallow: int
    deep: int


def layer_costs(
    shallow: Callable[[int], nn.Module], deep: Callable[[int], nn.Module]
) -> LayerCosts:
    """Return the parameters of one layer: those that a second layer adds to a block.

    The blocks are built on the meta device: no memory, no random number is used.
    """

    def cost(build: Callable[[int], nn.Module]) -> int:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            one, two = (sum(p.numel() for p in build(count).parameters()) for count in (1, 2))
        return two - one

    return LayerCosts(shallow=cost(shallow), deep=cost(deep))


class Split(ABC):
    """Divides layers between the shallow blocks and the deep block."""

    @abstractmethod
    def layers(self, costs: Callable[[], LayerCosts]) -> Layers:
        """Return the layers of each block.

        Args:
            costs: Returns the parameters of one layer; only a split that needs them calls it.
        """


class ExplicitSplit(Split):
    """Layers given explicitly.

    Args:
        shallow: Layers of each shallow block, data side first; empty for none.
        deep: Layers of the deep block; 0 only where an interleaving runs the flow elsewhere.

    Raises:
        UserError: If a number of layers is negative, or 0 in a shallow block.
    """

    def __init__(self, shallow: list[int], deep: int) -> None:
        if min([1, *shallow]) < 1 or deep < 0:
            raise UserError(
                f"layers must be positive, and deep may be 0, got shallow={shallow}, deep={deep}"
            )
        self.shallow = tuple(shallow)
        self.deep = deep

    def layers(self, costs: Callable[[], LayerCosts]) -> Layers:
        """Return the given layers."""
        return Layers(shallow=self.shallow, deep=self.deep)


class FractionSplit(Split):
    """A total of layers, a share of it for equal shallow blocks.

    Args:
        total: Layers of the whole flow.
        shallow_fraction: Share of the layers in shallow blocks, in [0, 1).
        num_shallow: Shallow blocks that share them.

    Raises:
        UserError: If an argument is out of range, or the share does not give every shallow block
            the same whole number of layers.
    """

    def __init__(self, total: int, shallow_fraction: float, num_shallow: int) -> None:
        if total < 1:
            raise UserError(f"total must be a positive number of layers, got {total}")
        _check_fraction(shallow_fraction)
        if num_shallow < 0:
            raise UserError(f"num_shallow must be 0 or positive, got {num_shallow}")
        each, rest = divmod(round(total * shallow_fraction), max(num_shallow, 1))
        exact = abs(total * shallow_fraction - each * num_shallow) < 1e-6
        if rest or not exact or (num_shallow and each < 1) or each * num_shallow >= total:
            raise UserError(
                "shallow_fraction * total must be a whole multiple of num_shallow and leave layers "
                f"for the deep block, got total={total}, shallow_fraction={shallow_fraction}, "
                f"num_shallow={num_shallow}"
            )
        self.split = Layers(shallow=(each,) * num_shallow, deep=total - each * num_shallow)

    def layers(self, costs: Callable[[], LayerCosts]) -> Layers:
        """Return the division."""
        return self.split


class ParameterSplit(Split):
    """A total of parameters in layers, a share of it for equal shallow blocks.

    Layers are whole. With S parameters in a shallow layer and D in a deep one, each shallow block
    gets shallow_fraction * total / (num_shallow * S) layers and the deep block
    (total - what the shallow blocks then have) / D, both to the nearest whole number (a half: up).
    So the flow's total is within half a deep layer of the budget, whatever the shallow share.
    Embeddings, heads and norms outside the layers are not counted.

    Args:
        total: Parameters in all layers of the flow.
        shallow_fraction: Share of them in shallow blocks, in [0, 1); 0 exactly where there are no
            shallow blocks.
        num_shallow: Shallow blocks that share them, equally.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(self, total: int, shallow_fraction: float, num_shallow: int) -> None:
        if total < 1:
            raise UserError(f"total must be a positive number of parameters, got {total}")
        _check_fraction(shallow_fraction)
        if num_shallow < 0 or (num_shallow == 0) != (shallow_fraction == 0):
            raise UserError(
                "num_shallow must be positive where shallow_fraction is, and 0 where it is 0, "
                f"got num_shallow={num_shallow}, shallow_fraction={shallow_fraction}"
            )
        self.total = total
        self.shallow_fraction = shallow_fraction
        self.num_shallow = num_shallow

    def layers(self, costs: Callable[[], LayerCosts]) -> Layers:
        """Return the layers nearest to the budget.

        Raises:
            UserError: If a block gets no layer.
        """
        cost = costs()
        each = 0
        if self.num_shallow:
            each = _nearest(self.shallow_fraction * self.total / self.num_shallow, cost.shallow)
        remaining = self.total - each * self.num_shallow * cost.shallow
        deep = _nearest(float(remaining), cost.deep)
        if deep < 1 or (self.num_shallow and each < 1):
            raise UserError(
                f"total={self.total} parameters with shallow_fraction={self.shallow_fraction} must "
                f"give each block a layer, got {each} for each of {self.num_shallow} shallow "
                f"blocks ({cost.shallow} parameters a layer) and {deep} for the deep one "
                f"({cost.deep} a layer)"
            )
        return Layers(shallow=(each,) * self.num_shallow, deep=deep)


def _check_fraction(shallow_fraction: float) -> None:
    if not 0 <= shallow_fraction < 1:
        raise UserError(f"shallow_fraction must be in [0, 1), got {shallow_fraction}")


def _nearest(budget: float, cost: int) -> int:
    """Return the whole number of layers nearest to a budget; a half counts up."""
    if cost < 1:
        raise UserError(f"a layer must have parameters for ParameterSplit, got {cost}")
    return max(0, math.floor(budget / cost + 0.5))
