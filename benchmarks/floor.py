"""The least time a task can take on this machine: its matrix products, and the bytes it reads."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.size import Size
from pretzel.flow import AFBlock, CausalTransformer, FlowStack


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Arithmetic and memory traffic that a task needs at least.

    Attributes:
        flops: Floating-point operations of its matrix products.
        num_bytes: Weights and cached keys and values that it reads, all steps together.
        per_step: Bytes of one step, the size of the buffer on which bandwidth is measured: what
            fits a cache of the processor is read from there by the task and by the measurement.
        device: Where it computes.
    """

    flops: float
    num_bytes: float = 0.0
    per_step: float = 0.0
    device: torch.device

    @property
    def seconds(self) -> float:
        """The longer of computing and reading, at the rates of :func:`rate`, :func:`bandwidth`."""
        computing = self.flops / rate(self.device)
        if not self.num_bytes:
            return computing
        # A power of two: few measurements for many tasks.
        size = 2 ** round(math.log2(self.per_step))
        return max(computing, self.num_bytes / bandwidth(size, self.device))


@functools.cache
def rate(device: torch.device) -> float:
    """Return the measured rate of a large float32 matrix product, in operations a second."""
    n = 1024 if device.type == "cpu" else 8192
    a = torch.randn(n, n, device=device)
    return float(2 * n**3 / _best(lambda: a @ a, device))


@functools.cache
def bandwidth(num_bytes: int, device: torch.device) -> float:
    """Return the measured rate of reading a buffer again and again, in bytes a second."""
    buffer = torch.ones(max(num_bytes // 4, 1), device=device)
    return float(buffer.numel() * 4 / _best(lambda: buffer.sum(), device))


def _best(function: Callable[[], object], device: torch.device) -> float:
    """Return the least seconds of a call: what the machine can do when left alone.

    On a CPU those of its own time, as tasks are measured: other processes disturb it less.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    least = math.inf
    calls = 1
    deadline = time.perf_counter() + 0.3
    while time.perf_counter() < deadline:
        _wait(device)
        begin = clock()
        for _ in range(calls):
            function()
        _wait(device)
        taken = (clock() - begin) / calls
        least = min(least, taken)
        calls = max(1, min(1000, int(0.005 / taken)))
    return least


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def of_training(stack: FlowStack, size: Size, device: torch.device) -> Floor:
    """Return the floor of a training step: forward, and twice that backward."""
    flops = 0.0
    for block, text in zip(stack, size.texts, strict=True):
        positions = size.num_positions + text
        pairs = positions * (positions + 1) / 2  # causal
        flops += 2 * _matrices(block) * size.batch * positions
        flops += 4 * _layers_times_width(block) * size.batch * pairs
    return Floor(flops=3 * flops, device=device)


def of_sampling(stack: FlowStack, size: Size, guided: bool, device: torch.device) -> Floor:
    """Return the floor of one-by-one sampling: weights and caches are read at every position."""
    flops = num_bytes = 0.0
    largest = 0.0
    for block, text in zip(stack, size.texts, strict=True):
        rows = size.batch * (2 if guided and block.reads_context else 1)
        matrices, wide = _matrices(block), _layers_times_width(block)
        steps = size.num_positions
        read = steps * (text + (steps + 1) / 2)  # cached positions, summed over the steps
        flops += 2 * matrices * rows * (steps + text) + 4 * wide * rows * read
        block_bytes = 4 * (matrices * steps + 2 * wide * rows * read)
        num_bytes += block_bytes
        largest = max(largest, block_bytes / steps)
    return Floor(flops=flops, num_bytes=num_bytes, per_step=largest, device=device)


def of_passes(
    stack: FlowStack, positions: Sequence[int], length: int, device: torch.device
) -> Floor:
    """Return the floor of passes over many positions at once, forward only.

    Args:
        stack: The flow.
        positions: Rows times positions that the passes of each block run over.
        length: Positions of the grid, each of which reads half of them on average.
        device: Where it computes.
    """
    flops = 0.0
    for block, count in zip(stack, positions, strict=True):
        flops += 2 * _matrices(block) * count
        flops += 4 * _layers_times_width(block) * count * (length + 1) / 2
    return Floor(flops=flops, device=device)


def _matrices(block: torch.nn.Module) -> int:
    """Count the entries of the matrices of a block's linear maps."""
    linears = [m for m in block.modules() if isinstance(m, torch.nn.Linear)]
    return sum(linear.weight.numel() for linear in linears)


def _layers_times_width(block: torch.nn.Module) -> int:
    assert isinstance(block, AFBlock)
    transformer = block.conditioner
    assert isinstance(transformer, CausalTransformer)
    return len(transformer.layers) * transformer.num_heads * transformer.head_dim
