"""How training, sampling and memory grow with positions, depth, width and processes.

    python -m benchmarks.growth                # tables on the screen, some ten minutes
    python -m benchmarks.growth --quick        # seconds: does everything run?

A step trains on one image, a sample is one guided image, one position after the other; times are
the least CPU seconds of all rounds on one thread, beside the floor of :mod:`benchmarks.floor`:
matrix products at the rate of a large one, weights and caches at the rate of memory. Memory is what
a task adds to the peak of a fresh process. Several processes train on one image each, their
gradients averaged by DistributedDataParallel over gloo: seconds of a step on the clock.
What images in a conversation cost is measured by ``python -m benchmarks.generation``.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from benchmarks import flow_tasks, memory
from benchmarks.measure import Task
from benchmarks.size import Size, build

CPU = torch.device("cpu")
BASE = Size(side=16, channels=16, width=128, head_dim=64, layers=(2, 4), text=32, batch=1)
TINY = Size(side=2, channels=3, width=16, head_dim=8, layers=(1, 1), text=2, batch=1)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a task costs at one size.

    Attributes:
        seconds: Least CPU seconds.
        floor: Seconds that it needs at least on this machine.
        mib: Memory that it adds to its process; None if not measured.
    """

    seconds: float
    floor: float
    mib: float | None


def main(args: Sequence[str] | None = None) -> list[str]:
    """Measure and print; return the lines.

    Args:
        args: A command line; None for this process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round, no more")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each size")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    if options.child:
        axis, number, name = options.child.split("/")
        print(memory.measure(_task(list(axes(quick=False)[axis].values())[int(number)], name)))
        return []
    lines = []
    for axis, sizes in axes(quick=options.quick).items():
        rounds = 1 if options.quick else options.rounds
        costs = {
            name: [
                _cost(size, name, rounds, None if options.quick else f"{axis}/{number}/{name}")
                for number, size in enumerate(sizes.values())
            ]
            for name in ("training", "sampling")
        }
        lines += _table(axis, list(sizes), costs)
    if not options.quick:
        one, two = (step_seconds(count, BASE, 20) for count in (1, 2))
        lines += [
            "",
            f"A step of 1 process {one:.3g} s, of 2 {two:.3g} s on the clock: "
            f"{2 * one / two:.2f} times the images a second.",
        ]
    print("\n".join(lines))
    return lines


def axes(*, quick: bool) -> Mapping[str, Mapping[int, Size]]:
    """Return the sizes of each axis by what grows along it."""
    base = TINY if quick else BASE
    sides = (2, 3) if quick else (8, 16, 32, 64)
    depths = (1, 2) if quick else (2, 4, 8, 16)
    widths = (16, 32) if quick else (64, 128, 256, 512)
    return {
        "positions": {side**2: replace(base, side=side) for side in sides},
        "deep layers": {n: replace(base, layers=(base.layers[0], n)) for n in depths},
        "width": {width: replace(base, width=width) for width in widths},
    }


def step_seconds(num_processes: int, size: Size, steps: int) -> float:
    """Return the seconds of a training step of so many processes, the median on the clock."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "seconds"
        mp.spawn(  # type: ignore[attr-defined, no-untyped-call]
            _train, args=(num_processes, size, steps, folder), nprocs=num_processes
        )
        return float(file.read_text())


def _train(rank: int, num_processes: int, size: Size, steps: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(f"{folder}/store", num_processes)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=num_processes)
    problem = build(size, CPU)
    model = DistributedDataParallel(problem.stack)
    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        flowed = model(problem.x, problem.text)
        loss = flowed.z.square().mean() / 2 - flowed.logdet.mean() / problem.x[0].numel()
        model.zero_grad()
        loss.backward()
        seconds.append(time.perf_counter() - begin)
    if rank == 0:
        Path(folder, "seconds").write_text(str(sorted(seconds)[steps // 2]))
    dist.destroy_process_group()


def _comparison(size: Size, name: str) -> Task:
    problem = build(size, CPU)
    if name == "training":
        return flow_tasks.training(problem, CPU)
    return flow_tasks.sampling(problem, flow_tasks.WEIGHT, CPU)


def _task(size: Size, name: str) -> Callable[[], object]:
    return _comparison(size, name).arms["ours"]


def _cost(size: Size, name: str, rounds: int, child: str | None) -> Cost:
    task = _comparison(size, name)
    least = math.inf
    for _ in range(rounds + 1):
        begin = time.process_time()
        task.arms["ours"]()
        least = min(least, time.process_time() - begin)
    mib = None
    if child is not None:
        command = [sys.executable, "-m", "benchmarks.growth", "--child", child]
        mib = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert task.floor is not None
    return Cost(seconds=least, floor=task.floor.seconds, mib=mib)


def _table(axis: str, values: Sequence[int], costs: Mapping[str, Sequence[Cost]]) -> list[str]:
    names = list(costs)
    header = [axis, *(f"{name} s | / floor | MiB" for name in names)]
    lines = ["", f"| {' | '.join(header)} |", "|" + "---|" * (1 + 3 * len(names))]
    for number, value in enumerate(values):
        cells = [f"{value:,}"]
        for name in names:
            cost = costs[name][number]
            mib = "-" if cost.mib is None else f"{cost.mib:,.0f}"
            cells += [f"{cost.seconds:.3g}", f"{cost.seconds / cost.floor:.1f}", mib]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
