"""How long a large grid takes to plan: ``python -m benchmarks.grid_plan``.

The quickstart's base with as many learning rates, or with as many architectures (widths and numbers
of layers of the deep stream: each is a model of its own, built and counted), as are asked for. CPU
time of this process, without imports.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import yaml

from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.planning.grid_to_plan import Planner
from pretzel.ablation.planning.progress import planning_progress

_BASE = Path(__file__).parents[1] / "ablations" / "base" / "easy_vqa.yaml"
_RATE = "model.init_args.optimizer.init_args.lr"
_PRETZEL = "model.init_args.pretzel.init_args"
_WIDTH = f"{_PRETZEL}.deep.init_args.conditioner.init_args.width"
_LAYERS = f"{_PRETZEL}.split.init_args.deep"
_DEPTHS = 10
Vary = Literal["rates", "architectures"]


def grid_file(folder: Path, configurations: int, seeds: int, vary: Vary) -> Path:
    """Write a grid.

    Args:
        folder: Where.
        configurations: Number of arms.
        seeds: Number of seeds.
        vary: What arms differ in.
    """

    def arm(number: int) -> dict[str, float]:
        if vary == "rates":
            return {_RATE: 1e-5 * (number + 1)}
        return {_WIDTH: 32 * (number // _DEPTHS + 1), _LAYERS: number % _DEPTHS + 1}

    arms = {f"arm{number}": arm(number) for number in range(configurations)}
    path = folder / "grid.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "base": str(_BASE),
                "axes": {"arm": arms},
                "seeds": list(range(seeds)),
                "baseline": {"arm": "arm0"},
                "metrics": {"test/right": "max"},
            }
        )
    )
    return path


@dataclass(frozen=True, kw_only=True)
class PlanCost:
    """Cost of planning.

    Attributes:
        runs: Number of planned runs.
        seconds: CPU time.
        wholes: Number of configurations parsed as a whole.
        arguments: Number of arguments parsed alone.
        builds: Number of models built.
    """

    runs: int
    seconds: float
    wholes: int
    arguments: int
    builds: int


def planned(folder: Path, *, configurations: int, seeds: int, vary: Vary) -> PlanCost:
    """Plan a grid in a folder.

    Args:
        folder: Where its file is written.
        configurations: Number of arms.
        seeds: Number of seeds.
        vary: What arms differ in.
    """
    grid = load(grid_file(folder, configurations, seeds, vary))
    start = time.process_time()
    planner = Planner(grid)
    with planning_progress() as progress:
        plan = planner.plan(progress)
    return PlanCost(
        runs=len(plan.runs),
        seconds=time.process_time() - start,
        wholes=planner.resolve.wholes,
        arguments=planner.resolve.arguments,
        builds=planner.build.builds,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configurations", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--vary", choices=get_args(Vary), help="what arms differ in (default: one after the other)"
    )
    options = parser.parse_args()
    for vary in [options.vary] if options.vary else get_args(Vary):
        with tempfile.TemporaryDirectory() as folder:
            cost = planned(
                Path(folder), configurations=options.configurations, seeds=options.seeds, vary=vary
            )
        print(
            f"{options.configurations} {vary} x {options.seeds} seeds: {cost.runs} runs planned in "
            f"{cost.seconds:.1f} s of CPU time\n"
            f"{cost.wholes} configurations parsed whole, {cost.arguments} arguments parsed "
            f"alone, {cost.builds} models built",
            flush=True,
        )


if __name__ == "__main__":
    main()
