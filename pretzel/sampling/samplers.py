"""Samplers: how the positions of an autoregressive map are found, one by one or many at once.

Fixed-point iteration x <- T^-1(z; theta(x)) reaches the exact inverse in at most as many rounds as
there are positions, because position i depends on those before it only; usually long before.
"""

import logging
import math
import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pretzel.errors import UserError
from pretzel.flow.compiled_decoding import compiled_decoding, is_compiled
from pretzel.flow.decoding_operator import SECONDS as DECODING_SECONDS
from pretzel.rng import stream
from pretzel.sampling.inversion import Inversion
from pretzel.typing import Float, Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Network evaluations that solving one block took.

    Attributes:
        evaluations: Calls of its network: those that commit, and provisional ones.
        provisional: Those of them whose keys and values were taken out of the cache again.
        positions: Positions that all these calls ran over.
    """

    evaluations: int = 0
    provisional: int = 0
    positions: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            evaluations=self.evaluations + other.evaluations,
            provisional=self.provisional + other.provisional,
            positions=self.positions + other.positions,
        )


class Sampler(ABC):
    """Solves the inversions of a flow, block after block, noise side first."""

    evaluation_only: ClassVar[bool] = True

    def state(self) -> dict[str, Any]:
        """Return what was learned while sampling, in plain types; it is saved with the run."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with what an earlier run learned."""
        return

    @abstractmethod
    def solve(self, inversion: Inversion, block: int) -> Work:
        """Bring the estimate of an inversion to its solution; return the evaluations it took.

        Args:
            inversion: The problem, at its beginning.
            block: Number of the block in the order of sampling; 0 is the first and hardest.
        """


class Sequential(Sampler):
    """One position after the other: exact.

    Args:
        compile: Run the layers of a position as one compiled operator, on a CPU, where they are of
            :class:`~pretzel.flow.CausalTransformer` with RMS norms and an MLP of ours. It is built
            once for all models, in half a minute, and kept in the user's cache; without a C++
            compiler the log says so. Samples are the same to rounding.
    """

    def __init__(self, compile: bool = False) -> None:
        self.compile = compile

    def solve(self, inversion: Inversion, block: int) -> Work:
        """Step through the positions."""
        n = inversion.num_positions
        with compiled_decoding() if self.compile else nullcontext():
            for index in range(n):
                inversion.step(index)
            if is_compiled() and DECODING_SECONDS:
                _tell_gain(inversion, DECODING_SECONDS.pop())
        return Work(evaluations=n, positions=n)


class Jacobi(Sampler):
    """Fixed-point iteration over blocks of positions, with what is finished in the cache.

    A block of positions is iterated from the noise until the relative change
    mean((x' - x)^2) / mean(x'^2) over the batch falls below the tolerance, at most as often as it
    has positions, when it is exact. Then one more evaluation, at the solution, gives the final
    values and is the one whose keys and values stay in the cache.

    Args:
        block_size: Positions iterated together; None for all of them.
        tolerance: Relative mean square change at which to stop; 0 for the exact inverse.
        max_iterations: Limit for each block of positions; None for its size.
        keep_last_iteration: Leave the last iteration's keys and values in the cache, those of the
            estimate before its update, and make no further evaluation (STARFlow's code).

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(
        self,
        block_size: int | None = None,
        tolerance: float = 1e-8,
        max_iterations: int | None = None,
        keep_last_iteration: bool = False,
    ) -> None:
        for name, value in (("block_size", block_size), ("max_iterations", max_iterations)):
            if value is not None and value < 1:
                raise UserError(f"{name} must be positive, got {value}")
        if not tolerance >= 0:
            raise UserError(f"tolerance must be 0 or positive, got {tolerance}")
        self.block_size = block_size
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.keep_last_iteration = keep_last_iteration

    def solve(self, inversion: Inversion, block: int) -> Work:
        """Iterate each block of positions in turn."""
        return self.iterate(inversion, self.block_size or inversion.num_positions)

    def iterate(self, inversion: Inversion, size: int) -> Work:
        """Iterate blocks of ``size`` positions."""
        work = Work()
        for start in range(0, inversion.num_positions, size):
            work += self._chunk(inversion, start, min(start + size, inversion.num_positions))
        return work

    def _chunk(self, inversion: Inversion, start: int, stop: int) -> Work:
        size = stop - start
        # With as many rounds as positions the estimate is exact, and so is what the last one read
        # of all positions but its own last, which nothing here reads.
        limit = min(self.max_iterations or size, size)
        evaluations = provisional = 0
        while True:
            x = inversion.evaluate(start, stop)
            evaluations += 1
            change = x - inversion.branches.x[:, start:stop]
            inversion.branches.write(start, stop, x)
            if evaluations >= limit:
                break
            # Both numbers in one transfer: each waits for the device.
            moved, size_of_x = torch.stack([change.square().mean(), x.square().mean()]).tolist()
            if moved < self.tolerance * size_of_x:
                break
            inversion.rewind(start, stop)
            provisional += 1
        if not self.keep_last_iteration and evaluations < size:
            inversion.rewind(start, stop)
            inversion.branches.write(start, stop, inversion.evaluate(start, stop))
            evaluations += 1
            provisional += 1
        return Work(evaluations=evaluations, provisional=provisional, positions=evaluations * size)


class SelectiveJacobi(Sampler):
    """The first, hardest blocks one position after the other, the others by iteration.

    Args:
        jacobi: How the others are iterated.
        num_sequential: Blocks at the noise side that are stepped through.

    Raises:
        UserError: If ``num_sequential`` is negative.
    """

    def __init__(self, jacobi: Jacobi, num_sequential: int = 1) -> None:
        if num_sequential < 0:
            raise UserError(f"num_sequential must be 0 or positive, got {num_sequential}")
        self.jacobi = jacobi
        self.num_sequential = num_sequential

    def solve(self, inversion: Inversion, block: int) -> Work:
        """Choose by the number of the block."""
        chosen = Sequential() if block < self.num_sequential else self.jacobi
        return chosen.solve(inversion, block)


class GaussSeidelJacobi(Sampler):
    """Iteration within segments, segment after segment, as many as suit each block.

    Gauss-Seidel over segments with Jacobi inside (GS-Jacobi, arXiv 2505.12849). How many segments
    a block wants is found at its first use: trial samples are drawn with 1, 2, 4, ... segments, and
    what costs least is kept. A network call is taken to cost its positions plus a fixed
    ``overhead``, and trial samples have noise of their own and no prompts, so that the schedule
    depends on the model alone: not on the machine, nor on the batch. Processes that draw different
    batches, or none, therefore agree without waiting for one another.

    Args:
        tolerance: Relative mean square change at which a segment is finished.
        num_samples: Trial samples on which the schedule is found.
        overhead: Cost of a network call, in positions.
        schedule: Segments of each block in the order of sampling; None to find them.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(
        self,
        tolerance: float = 1e-8,
        num_samples: int = 4,
        overhead: float = 16.0,
        schedule: list[int] | None = None,
    ) -> None:
        if num_samples < 1:
            raise UserError(f"num_samples must be positive, got {num_samples}")
        if overhead < 0:
            raise UserError(f"overhead must be 0 or positive, got {overhead}")
        if schedule is not None and min(schedule, default=0) < 1:
            raise UserError(f"schedule must hold positive numbers of segments, got {schedule}")
        self.jacobi = Jacobi(tolerance=tolerance)
        self.num_samples = num_samples
        self.overhead = overhead
        self.is_given = schedule is not None
        self.schedule: dict[int, int] = dict(enumerate(schedule or []))
        self._trial: Float[Tensor, "k n d"] | None = None  # samples of the last block tried

    def solve(self, inversion: Inversion, block: int) -> Work:
        """Iterate the block in its segments, found at its first use.

        Raises:
            UserError: If the given schedule has no number for the block.
        """
        if block not in self.schedule:
            if self.is_given:
                raise UserError(
                    f"schedule must have a number of segments for each block, got "
                    f"{len(self.schedule)} for block {block}"
                )
            self.schedule[block] = self._find(inversion, block)
        size = _segment(inversion.num_positions, self.schedule[block])
        return self.jacobi.iterate(inversion, size)

    def state(self) -> dict[str, Any]:
        """Return the number of segments of each block found so far."""
        return {"schedule": {str(block): count for block, count in self.schedule.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take a schedule that an earlier run found, unless one is given."""
        if not self.is_given:
            schedule = state.get("schedule", {})
            self.schedule = {int(block): int(count) for block, count in schedule.items()}

    def _find(self, inversion: Inversion, block: int) -> int:
        n, d = inversion.branches.z.shape[1:]
        # A block starts where the one before it has come to; only the first has noise.
        z = self._trial
        if block == 0 or z is None or z.shape != (self.num_samples, n, d):
            z = trial_noise(self.num_samples, n, d)
        z = z.to(inversion.branches.z, copy=True)
        best, least = n, n * (self.overhead + 1)  # sequential
        segments = 1
        while segments < n:
            trial = inversion.trial(z)
            work = self.jacobi.iterate(trial, _segment(n, segments))
            cost = work.evaluations * self.overhead + work.positions
            if cost < least:
                best, least = segments, cost
            # Every number of segments leads here; what runs off without a prompt is no sample.
            self._trial = trial.estimate.detach().nan_to_num(0.0, 0.0, 0.0)
            segments *= 2
        return best


def _tell_gain(inversion: Inversion, seconds: float) -> None:
    """Log after how much sampling the time that compiling took is made up for."""
    noise = trial_noise(*inversion.branches.z.shape).to(inversion.branches.z)
    count = min(inversion.num_positions, 32)

    def step(is_on: bool) -> float:
        trial = inversion.trial(noise)
        with compiled_decoding(is_on):
            trial.step(0)
            start = time.perf_counter()
            for index in range(1, count):
                trial.step(index)
        return (time.perf_counter() - start) / max(count - 1, 1)

    plain, compiled = step(False), step(True)
    saved = (plain - compiled) * inversion.num_positions
    pays = f"that pays after {math.ceil(seconds / saved)} such batches" if saved > 0 else "no gain"
    logger.info(
        "a compiled step of %d rows takes %.2f ms in the place of %.2f: %s in this block",
        len(inversion.branches.rows), 1e3 * compiled, 1e3 * plain, pays,
    )  # fmt: skip


def trial_noise(num_samples: int, num_positions: int, channels: int) -> Float[Tensor, "k n d"]:
    """Return the noise on which schedules are found: the same in every process, float64."""
    shape = (num_samples, num_positions, channels)
    return torch.randn(shape, generator=stream("schedule"), dtype=torch.float64)


def _segment(num_positions: int, segments: int) -> int:
    return -(-num_positions // segments)
