"""Training step and sampling of the flow against a plain reference, side by side.

    python -m benchmarks.flow                 # table on the screen
    python -m benchmarks.flow --out result    # and result.json, result.md

Same weights, same process, one thread, alternating. Time is the CPU time of that one thread,
which other processes on the machine disturb less than the clock; memory is what a task adds to
the peak RSS of a fresh process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import reference
from pretzel.flow import AFBlock, AffineSoftplus, CausalTransformer, Flip, FlowStack, Raster
from pretzel.rng import stream
from pretzel.typing import Float, Tensor

TASKS = ("training step", "sequential sampling")
ARMS = ("ours", "reference")


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is measured.

    Attributes:
        side: Rows and columns of the latent grid.
        channels: Channels of a latent position.
        width: Channels of the transformers.
        head_dim: Channels of a head.
        layers: Layers of each block.
        batch: Rows.
    """

    side: int
    channels: int
    width: int
    head_dim: int
    layers: tuple[int, ...]
    batch: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the result.

    Attributes:
        task: What was done.
        ours: Median CPU seconds of our stack.
        reference: Median CPU seconds of the reference.
        ratio: Median over rounds of ours / reference.
        spread: Smallest and largest of these ratios.
        ours_mib: Peak memory our stack adds to its process, MiB; None if not measured.
        reference_mib: The same of the reference.
    """

    task: str
    ours: float
    reference: float
    ratio: float
    spread: tuple[float, float]
    ours_mib: float | None = None
    reference_mib: float | None = None


def build(size: Size) -> FlowStack:
    """Return our stack, its heads away from zero."""
    blocks = [
        AFBlock(
            size.channels,
            (size.side, size.side),
            layers,
            Flip() if number % 2 else Raster(),
            transform=AffineSoftplus(),
            conditioner=partial(CausalTransformer, width=size.width, head_dim=size.head_dim),
        )
        for number, layers in enumerate(size.layers)
    ]
    for block in blocks:
        torch.nn.init.normal_(block.head.weight, std=0.3 * size.width**-0.5)
    return FlowStack(list(blocks))


def tasks(size: Size) -> dict[tuple[str, str], Callable[[], object]]:
    """Return every task of every arm as a function without arguments."""
    stack = build(size)
    x = torch.randn(size.batch, size.side**2, size.channels, generator=stream("benchmark"))

    def blocks() -> list[reference.Block]:
        # Embeddings depend on weights, so that a training step makes them anew.
        return [reference.from_block(b) for b in stack.blocks if isinstance(b, AFBlock)]

    def train(ours: bool) -> Float[Tensor, ""]:
        stack.zero_grad()
        if ours:
            flowed = stack(x)
            z, logdet = flowed.z, flowed.logdet
        else:
            z, logdet = reference.forward_all(blocks(), x)
        loss = z.square().mean() / 2 - logdet.mean() / x[0].numel()
        loss.backward()
        value: Tensor = loss.detach()
        return value

    def sample(ours: bool) -> Float[Tensor, "b n d"]:
        with torch.inference_mode():
            return stack.inverse(x) if ours else reference.inverse_all(blocks(), x)

    return {
        (task, arm): lambda function=function, ours=arm == "ours": function(ours)  # type: ignore[misc]
        for task, function in zip(TASKS, (train, sample), strict=True)
        for arm in ARMS
    }


def measure(size: Size, rounds: int) -> list[Row]:
    """Time every task of both arms in turn; the first round warms up and does not count.

    Raises:
        AssertionError: If the arms do not compute the same.
    """
    functions = tasks(size)
    rows = []
    for task in TASKS:
        seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
        results: dict[str, Tensor] = {}
        for turn in range(rounds + 1):
            for arm in ARMS if turn % 2 else ARMS[::-1]:
                begin = time.process_time()
                result = functions[task, arm]()
                seconds[arm].append(time.process_time() - begin)
                assert isinstance(result, Tensor)
                results[arm] = result
        torch.testing.assert_close(results["ours"], results["reference"], rtol=1e-3, atol=1e-3)
        ours, other = seconds["ours"][1:], seconds["reference"][1:]
        ratios = [a / b for a, b in zip(ours, other, strict=True)]
        rows.append(
            Row(
                task=task,
                ours=statistics.median(ours),
                reference=statistics.median(other),
                ratio=statistics.median(ratios),
                spread=(min(ratios), max(ratios)),
            )
        )
    return rows


def peak_mib() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def fill_to_peak() -> list[bytes]:
    """Return ballast that lifts this process to its own peak, which imports have left behind.

    Without it the first hundreds of MiB of a task would not move the peak.
    """
    ballast: list[bytes] = []
    peak = peak_mib()
    while peak_mib() < peak + 1:
        ballast.append(b"." * 2**18)
    return ballast


def added_memory(task: str, arm: str, args: Sequence[str]) -> float:
    """Return what a task of one arm adds to the peak memory of a fresh process, in MiB."""
    command = [sys.executable, "-m", "benchmarks.flow", *args, "--child", f"{task}/{arm}"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(size: Size, name: str) -> None:
    """Print what one task adds to the peak memory of this process."""
    task, arm = name.split("/")
    function = tasks(size)[task, arm]
    ballast = fill_to_peak()
    before = peak_mib()
    function()
    print(peak_mib() - before)
    del ballast


def markdown(size: Size, rows: Sequence[Row]) -> str:
    """Return the result as a table."""
    lines = [
        f"Grid {size.side}x{size.side}x{size.channels}, width {size.width}, layers "
        f"{list(size.layers)}, batch {size.batch}, {torch.get_num_threads()} thread, "
        f"torch {torch.__version__}",
        "",
        "| task | ours (s) | reference (s) | ours / reference | ours (MiB) | reference (MiB) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        memory = ["-" if mib is None else f"{mib:.0f}" for mib in (row.ours_mib, row.reference_mib)]
        lines.append(
            f"| {row.task} | {row.ours:.3f} | {row.reference:.3f} "
            f"| {row.ratio:.2f} ({row.spread[0]:.2f}-{row.spread[1]:.2f}) "
            f"| {memory[0]} | {memory[1]} |"
        )
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> list[Row]:
    """Measure, print and, where asked, write the result.

    Args:
        args: A command line; None for this process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flow",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--side", type=int, default=8, help="rows and columns of the grid")
    parser.add_argument("--channels", type=int, default=48, help="channels of a position")
    parser.add_argument("--width", type=int, default=128, help="channels of the transformers")
    parser.add_argument("--head_dim", type=int, default=32, help="channels of a head")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 2, 4], help="of each block")
    parser.add_argument("--batch", type=int, default=16, help="rows")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--no_memory", action="store_true", help="skip the child processes")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(args)
    size = Size(
        side=given.side,
        channels=given.channels,
        width=given.width,
        head_dim=given.head_dim,
        layers=tuple(given.layers),
        batch=given.batch,
    )
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if given.child:
        child(size, given.child)
        return []
    rows = measure(size, given.rounds)
    if not given.no_memory:
        own = sys.argv[1:] if args is None else list(args)
        rows = [
            Row(
                **{
                    **vars(row),
                    "ours_mib": added_memory(row.task, "ours", own),
                    "reference_mib": added_memory(row.task, "reference", own),
                }
            )
            for row in rows
        ]
    text = markdown(size, rows)
    print(text)
    if given.out:
        given.out.with_suffix(".md").write_text(text + "\n")
        record = {"size": asdict(size), "rows": [asdict(row) for row in rows]}
        given.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    return rows


if __name__ == "__main__":
    main()
