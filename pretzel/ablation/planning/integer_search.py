"""Search for the integer, a width for example, at which a size meets a target, in few tries."""

import math
from collections.abc import Callable, Iterable, Iterator

from pretzel.errors import UserError

_MOST_TRIED_BETWEEN = 64
_MOST_TRIED = 200
_FIRST_STRIDE = 8  # sizes of layers are seldom anything else


def solve(
    size: Callable[[int], int | None], start: int, target: int, tolerance: float
) -> tuple[int, float]:
    """Return the integer whose size is the target's within the tolerance; the start, if it is.

    The size must be monotone in the integer, as parameters and FLOPs are in a width. The search
    brackets the target, cuts the bracket where a power law through its ends meets the target, and
    tries all integers that are left before it gives up. Returned with the integer is the relative
    difference that is left.

    Args:
        size: Size for an integer; None if it is refused. It is called once for an integer.
        start: The integer to start from, which is not refused.
        target: The size to reach.
        tolerance: Relative difference that is small enough.

    Raises:
        UserError: If no integer will do, with the nearest one.
    """
    search = _Search(size, start, target, tolerance)
    best = search.run()
    left = search.left(best)
    if abs(left) > tolerance:
        nearest = f"the nearest is {best}, {100 * left:+.1f} %"
        raise UserError(f"cannot be matched within {100 * tolerance:g} %: {nearest}")
    return best, left


class _Search:
    def __init__(
        self, size: Callable[[int], int | None], start: int, target: int, tolerance: float
    ) -> None:
        self.size, self.start, self.target, self.tolerance = size, start, target, tolerance
        self.sizes: dict[int, int] = {}
        self.refused: set[int] = set()
        divisors = [d for d in range(1, start + 1) if start % d == 0]
        self.strides = [d for d in divisors if d >= _FIRST_STRIDE] or divisors[-1:]

    def left(self, value: int) -> float:
        return self.sizes[value] / self.target - 1

    def is_allowed(self, value: int) -> bool:
        """Tell whether an integer is not refused; its size is then known."""
        if value >= 1 and value not in self.sizes and value not in self.refused:
            size = self.size(value)
            if size is None:
                self.refused.add(value)
            else:
                self.sizes[value] = size
        return value in self.sizes

    @property
    def best(self) -> int:
        return min(self.sizes, key=lambda value: (abs(self.left(value)), abs(value - self.start)))

    def is_good(self, value: int) -> bool:
        return abs(self.left(value)) <= self.tolerance

    def run(self) -> int:
        if self.is_allowed(self.start) and self.is_good(self.start):
            return self.start
        other = self.across()
        if other is None or self.is_good(self.best):
            return self.best
        low, high = sorted((self.start, other))
        while True:
            middle = self.first(self.between(low, high))
            if middle is None or self.is_good(middle):
                return self.best
            # the bracket keeps its ends on either side of the target
            is_same_side = (self.sizes[middle] < self.target) == (self.sizes[low] < self.target)
            low, high = (middle, high) if is_same_side else (low, middle)

    def across(self) -> int | None:
        """Return an integer on the other side of the target; None if there is none."""
        is_small = self.sizes[self.start] < self.target
        for is_up in (is_small, not is_small):  # first as if sizes grow with the integer
            value, following = self.start, self.step(self.start, is_up=is_up)
            while following is not None and (self.sizes[following] > self.sizes[value]) == is_small:
                if (self.sizes[following] < self.target) != is_small or self.is_good(following):
                    return following
                value, following = following, self.step(following, is_up=is_up)
        return None

    def step(self, value: int, *, is_up: bool) -> int | None:
        """Return an integer above or below one, by as much as the sizes differ or less."""
        ratio = self.target / self.sizes[value]
        factor = min(max(ratio, 1 / ratio, 1.25), 8)
        goal = math.ceil(value * factor) if is_up else int(value / factor)
        low, high = (value, 2 * goal) if is_up else (0, value)
        while abs(goal - value) > 1:
            if (allowed := self.first(self.near(goal, low, high))) is not None:
                return allowed
            goal = (goal + value) // 2
        count = _MOST_TRIED_BETWEEN
        rest = range(value + 1, value + count) if is_up else range(value - 1, value - count, -1)
        return self.first(rest)

    def between(self, low: int, high: int) -> Iterator[int]:
        """Yield integers inside a bracket, the most promising first, in the end all of them."""
        first, last = self.sizes[low], self.sizes[high]
        # a width's size follows a power law, so that its logarithm is nearly linear
        slope = math.log(last / first) / math.log(high / low)
        guess = round(low * (self.target / first) ** (1 / slope))
        yield from self.near(guess, low, high)
        rest = sorted(range(low + 1, high), key=lambda value: abs(value - guess))
        yield from rest[:_MOST_TRIED_BETWEEN]

    def near(self, guess: int, low: int, high: int) -> Iterator[int]:
        """Yield the multiples of divisors of the start beside a guess, inside a range."""
        for stride in self.strides:
            below = guess // stride * stride
            for value in sorted((below, below + stride), key=lambda value: abs(value - guess)):
                if low < value < high:
                    yield value

    def first(self, values: Iterable[int]) -> int | None:
        """Return the first integer that is not refused."""
        for value in values:
            is_new = value not in self.sizes and value not in self.refused
            if is_new and len(self.sizes) + len(self.refused) > _MOST_TRIED:
                return None
            if self.is_allowed(value):
                # smaller divisors were refused before
                self.strides = [s for s in self.strides if value % s == 0] or self.strides
                return value
        return None
