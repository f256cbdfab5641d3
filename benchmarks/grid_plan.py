"""How long a large grid takes to plan: ``python -m benchmarks.grid_plan``.

The quickstart's base with as many learning rates (or widths, which are as many models) as are asked
for; CPU time of this process, without imports.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.planning.planner import Planner
from pretzel.ablation.planning.progress import planning

_BASE = Path(__file__).parents[1] / "ablations" / "base" / "easy_vqa.yaml"
_RATE = "model.init_args.optimizer.init_args.lr"
_WIDTH = "model.init_args.pretzel.deep.init_args.conditioner.init_args.width"


def grid_file(folder: Path, configurations: int, seeds: int, *, widths: bool) -> Path:
    """Write a grid.

    Args:
        folder: Where.
        configurations: Number of arms.
        seeds: Number of seeds.
        widths: Whether arms differ in the width of the deep stream, not in the learning rate.
    """
    key = _WIDTH if widths else _RATE
    values = [32 * n if widths else 1e-5 * n for n in range(1, configurations + 1)]
    arms = {f"arm{n}": {key: value} for n, value in enumerate(values)}
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
class Planned:
    """What planning took.

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


def planned(folder: Path, *, configurations: int, seeds: int, widths: bool) -> Planned:
    """Plan a grid in a folder.

    Args:
        folder: Where its file is written.
        configurations: Number of arms.
        seeds: Number of seeds.
        widths: Whether arms differ in a width.
    """
    grid = load(grid_file(folder, configurations, seeds, widths=widths))
    start = time.process_time()
    planner = Planner(grid)
    with planning() as progress:
        plan = planner.plan(progress)
    return Planned(
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
    parser.add_argument("--widths", action="store_true", help="vary a width, not a learning rate")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = planned(
            Path(folder),
            configurations=given.configurations,
            seeds=given.seeds,
            widths=given.widths,
        )
    print(
        f"{given.configurations} configurations x {given.seeds} seeds: {found.runs} runs planned "
        f"in {found.seconds:.1f} s of CPU time\n"
        f"{found.wholes} configurations parsed whole, {found.arguments} arguments parsed alone, "
        f"{found.builds} models built"
    )


if __name__ == "__main__":
    main()
