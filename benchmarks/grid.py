"""Cost of a grid beside plain `pretzel fit` processes, and of looking at a large one.

    python -m benchmarks.grid           # all of it; half an hour on a quiet machine
    python -m benchmarks.grid --quick   # a minute: does everything run?

1. One cell, as the runner runs it, beside `pretzel fit` of the same configuration, which ends with
   the same weights: the same steps, callbacks, checkpoints of its own and logger, and no test. The
   runner's own time counts as the cell's. A cell that is forked does not pay for its imports; one
   in a process of its own does, as `pretzel fit` does.
2. A grid of small cells by `pretzel grid run`, its planning, imports and report included, beside as
   many `pretzel fit` processes, with as many at a time.
3. `pretzel grid status` of finished cells, and `pretzel --help`, as processes, imports included;
   and whether they import torch.

Each process has one thread. Arms run in turn; a ratio is the median over rounds of the ratio within
a round, smallest and largest in brackets. Progress goes to standard error, the result to standard
output.
"""

import argparse
import contextlib
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from pathlib import Path

import torch

from benchmarks import processes
from benchmarks.grid_project import Project, pretzel
from benchmarks.processes import Against, Cost, say
from pretzel.ablation.engines.base import Engine
from pretzel.ablation.engines.device_slots import device_slots
from pretzel.ablation.engines.fork_server import Forks
from pretzel.ablation.engines.processes import Processes
from pretzel.ablation.execution.commands import planned
from pretzel.ablation.execution.scheduler import Selection, execute
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.planning.plan import Plan

_RATE = 3e-3
_OVERHEAD, _FASTER, _STATUS = 1.05, 1.5, 1.0


def overhead(folder: Path, steps: int, rounds: int, *, quick: bool) -> list[Against]:
    """Return rounds of one cell, forked and in a process of its own, beside `pretzel fit`.

    Args:
        folder: An empty one.
        steps: Of the run.
        rounds: How many.
        quick: Whether only what is forked is run, and the server's imports may count as its.

    Raises:
        AssertionError: If they end with different weights.
    """
    project = Project(folder=folder, steps=steps)
    slot = device_slots(1, [], 1)
    forks = Forks(slot)
    try:
        say("planning")
        plan = planned(load(project.grid("cell", [_RATE], [0])))
        if not quick:
            say("a short cell first, so that the server has its imports")
            short = Project(folder=folder / "short", steps=2)
            short.folder.mkdir()
            _run(planned(load(short.grid("cell", [_RATE], [0]))), forks)
        fit = project.fit("fit", _RATE, 0)
        unforked = Processes(slot)
        server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        arms: dict[str, Callable[[], Cost]] = {
            "pretzel fit": lambda: _plain([fit], folder, 1),
            "cell, forked": lambda: processes.cost(lambda: _run(plan, forks), server),
        }
        if not quick:
            arms["cell, own process"] = lambda: processes.cost(lambda: _run(plan, unforked))
        costs = processes.in_turn(arms, rounds)
    finally:
        forks.close()
    _same_weights(folder / "fit", folder / "cell" / plan.compared[0].name)
    return [
        Against(work=name, other="pretzel fit", costs=costs[name], others=costs["pretzel fit"],
                goal=_OVERHEAD)
        for name in list(arms)[1:]
    ]  # fmt: skip


def _run(plan: Plan, engine: Engine) -> None:
    with contextlib.redirect_stdout(sys.stderr):
        names = [cell.name for cell in plan.runs]
        code = execute(plan, engine, Selection(rerun=names))
    assert code == 0, "its failure is told above"


def _plain(fits: Sequence[Sequence[str]], folder: Path, at_once: int) -> Cost:
    for output in folder.glob("fit*/"):  # of the round before; a cell begins anew as well
        shutil.rmtree(output)
    return processes.cost(lambda: processes.run("pretzel fit", fits, folder, at_once))


def _same_weights(*folders: Path) -> None:
    first, *others = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in folders
    )
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(first[name], other[name]) for name in first), "other weights"


def small_cells(
    folder: Path, steps: int, cells: int, slots: Sequence[int], rounds: int
) -> list[Against]:
    """Return rounds of a grid of small cells beside as many `pretzel fit` processes.

    Args:
        folder: An empty one.
        steps: Of each cell.
        cells: Number of cells: two seeds of half as many learning rates, or one.
        slots: Numbers of them at a time.
        rounds: How many.
    """
    project = Project(folder=folder, steps=steps)
    rates, seeds = [_RATE / 2**n for n in range((cells + 1) // 2)], [0, 1][:cells]
    fits = [
        project.fit(f"fit{n}-{seed}", rate, seed) for n, rate in enumerate(rates) for seed in seeds
    ]
    ran = 0

    def grid(at_once: int) -> Cost:
        nonlocal ran
        ran += 1
        file = project.grid(f"grid{ran}", rates, seeds)  # another output: it starts from nothing
        command = pretzel("grid", "run", str(file), "--slots", str(at_once), "--gpus", "none")
        cost = processes.cost(lambda: processes.run("pretzel grid run", [command], folder, 1))
        done = list((folder / f"grid{ran}").glob("arm*/seed*/result.json"))
        assert len(done) == len(fits), f"{len(done)} of {len(fits)} cells are done"
        return cost

    compared = []
    for at_once in slots:
        output = f"cells: {len(fits)}, at a time: {at_once}"
        arms = {"fits": partial(_plain, fits, folder, at_once), "grid": partial(grid, at_once)}
        say(output)
        costs = processes.in_turn(arms, rounds)
        compared.append(
            Against(work=f"pretzel grid run, {output}", other="pretzel fit", costs=costs["grid"],
                    others=costs["fits"], goal=1 / _FASTER)
        )  # fmt: skip
    return compared


@dataclass(frozen=True, kw_only=True)
class Look:
    """A command that only looks.

    Attributes:
        name: What is looked at.
        costs: Runs of it as a process.
        imports: The modules that it imports.
    """

    name: str
    costs: Sequence[Cost]
    imports: frozenset[str]


def looks(folder: Path, grids: Sequence[Sequence[int]], rounds: int) -> list[Look]:
    """Return what it costs to look at grids that are done, and at the help.

    Args:
        folder: An empty one.
        grids: Numbers of arms and seeds of the grids.
        rounds: How often each command runs, after once for warming up.
    """
    project = Project(folder=folder, steps=2)
    commands = {}
    for arms, seeds in grids:
        name = f"{arms} arms x {seeds} seeds"
        say(f"writing a finished grid of {name}")
        file = project.finished(f"grid{arms}x{seeds}", arms, seeds)
        commands[f"pretzel grid status, {name}"] = pretzel("grid", "status", str(file))
        status = processes.output(pretzel("grid", "status", str(file)), folder)
        assert f"{arms * seeds} done" in status, status[-2000:]
    commands["pretzel --help"] = pretzel("--help")
    measured = []
    for name, command in commands.items():
        say(name)
        python, *words = command
        traced = processes.output([python, "-X", "importtime", *words], folder)  # warms up as well
        imports = frozenset(re.findall(r"^import time:[\d |]+\|\s+([\w.]+)$", traced, re.M))
        assert "pretzel" in imports, "the trace of imports is not understood"
        costs = [processes.cost(partial(processes.output, command, folder)) for _ in range(rounds)]
        measured.append(Look(name=name, costs=costs, imports=imports))
    return measured


def compared(title: str, rows: Sequence[Against]) -> list[str]:
    """Return a table of works beside others."""
    lines = [
        f"### {title}",
        "",
        "| this | against | clock s | CPU s | clock ratio | CPU ratio | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        both = (row.costs, row.others)
        clock = " / ".join(f"{statistics.median(c.clock for c in costs):.1f}" for costs in both)
        cpu = " / ".join(f"{statistics.median(c.cpu for c in costs):.1f}" for costs in both)
        met = [
            f"{name} {'met' if ratio.median <= row.goal else 'missed'}"
            for name, ratio in (("clock", row.clock), ("CPU", row.cpu))
        ]
        lines.append(
            f"| {row.work} | {row.other} | {clock} | {cpu} | {row.clock} | {row.cpu} "
            f"| <= {row.goal:.2f}: {', '.join(met)} |"
        )
    return lines


def looked(rows: Sequence[Look]) -> list[str]:
    """Return a table of commands that only look."""
    lines = [
        "### Looking",
        "",
        "| command | clock s (range) | CPU s | modules imported | torch among them | goal |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        clock = [cost.clock for cost in row.costs]
        median, cpu = statistics.median(clock), statistics.median(cost.cpu for cost in row.costs)
        torch_there = "torch" in row.imports
        met = "met" if median < _STATUS and not torch_there else "missed"
        lines.append(
            f"| {row.name} | {median:.2f} ({min(clock):.2f}-{max(clock):.2f}) | {cpu:.2f} "
            f"| {len(row.imports)} | {'yes' if torch_there else 'no'} "
            f"| < {_STATUS:.0f} s, no torch: {met} |"
        )
    return lines


def main(args: Sequence[str] | None = None) -> int:
    """Measure, and print tables."""
    options = _parser().parse_args(args)
    if options.quick:
        options.rounds, options.steps, options.cell_steps, options.cells = 1, 2, 2, 1
        options.slots, options.status = [1], ["10x2"]
    torch.set_num_threads(1)
    print(
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, "
        f"{options.rounds} rounds, five of a command that only looks."
    )
    with tempfile.TemporaryDirectory() as temporary:

        def folder(name: str) -> Path:
            made = Path(temporary) / name
            made.mkdir()
            return made

        if "cell" in options.only:
            rows = overhead(folder("cell"), options.steps, options.rounds, quick=options.quick)
            _show(compared(f"One cell of {options.steps} steps", rows))
        if "grid" in options.only:
            rows = small_cells(
                folder("grid"), options.cell_steps, options.cells, options.slots, options.rounds
            )
            _show(compared(f"A grid of small cells, of {options.cell_steps} steps", rows))
        if "looks" in options.only:
            grids = [[int(number) for number in size.split("x")] for size in options.status]
            _show(looked(looks(folder("looks"), grids, 5)))
    return 0


def _show(lines: Sequence[str]) -> None:
    print("\n" + "\n".join(lines), flush=True)


def _processor() -> str:
    with contextlib.suppress(OSError):
        match = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
        if match:
            return match[1]
    return platform.processor() or platform.machine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grid",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round, one engine")
    parser.add_argument(
        "--only", nargs="+", choices=["cell", "grid", "looks"], default=["cell", "grid", "looks"]
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    parser.add_argument("--steps", type=int, default=400, help="of the one cell")
    parser.add_argument("--cell_steps", type=int, default=10, help="of each small cell")
    parser.add_argument("--cells", type=int, default=8, help="small cells: 1, or an even number")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2], help="at a time")
    parser.add_argument(
        "--status", nargs="+", metavar="ARMSxSEEDS", default=["100x10", "1000x1"],
        help="sizes of the finished grids",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
