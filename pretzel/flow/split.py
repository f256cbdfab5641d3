"""How a layer budget is divided between shallow blocks and the deep block."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Layers of each block.

    Attributes:
        shallow: Layers of each shallow block, data side first; empty for none.
        deep: Layers of the deep block.
    """

    shallow: tuple[int, ...]
    deep: int


class Split(ABC):
    """Divides layers between the shallow blocks and the deep block."""

    @abstractmethod
    def layers(self) -> Layers:
        """Return the layers of each block."""


class ExplicitSplit(Split):
    """Layers written out.

    Args:
        shallow: Layers of each shallow block, data side first; empty for none.
        deep: Layers of the deep block.

    Raises:
        UserError: If a number of layers is not positive.
    """

    def __init__(self, shallow: list[int], deep: int) -> None:
        if min([deep, *shallow]) < 1:
            raise UserError(f"layers must be positive, got shallow={shallow}, deep={deep}")
        self.shallow = tuple(shallow)
        self.deep = deep

    def layers(self) -> Layers:
        """Return what was written."""
        return Layers(shallow=self.shallow, deep=self.deep)


class FractionSplit(Split):
    """A total of layers, a share of it for equal shallow blocks.

    Args:
        total: Layers of the whole flow.
        shallow_fraction: Share of the layers in shallow blocks, in [0, 1).
        num_shallow: Shallow blocks that share them.

    Raises:
        UserError: If the share does not give every shallow block the same whole number of layers,
            or leaves none for the deep block.
    """

    def __init__(self, total: int, shallow_fraction: float, num_shallow: int) -> None:
        each, rest = divmod(round(total * shallow_fraction), max(num_shallow, 1))
        exact = abs(total * shallow_fraction - each * num_shallow) < 1e-6
        if rest or not exact or (num_shallow > 0 and each < 1) or each * num_shallow >= total:
            raise UserError(
                "shallow_fraction * total must be a whole multiple of num_shallow and leave layers "
                f"for the deep block, got total={total}, shallow_fraction={shallow_fraction}, "
                f"num_shallow={num_shallow}"
            )
        self.split = Layers(shallow=(each,) * num_shallow, deep=total - each * num_shallow)

    def layers(self) -> Layers:
        """Return the division."""
        return self.split
