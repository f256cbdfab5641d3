"""The engine that a user's options name."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from pretzel.ablation.engines.base import Engine
from pretzel.ablation.engines.device_slots import device_slots
from pretzel.errors import UserError


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`engine_of` reads."""
    parser.add_argument(
        "--engine",
        choices=["forks", "processes", "slurm"],
        default="forks",
        help="forks of one process that has the imports (default), processes that import "
        "themselves, or jobs of a Slurm cluster",
    )
    parser.add_argument(
        "--slots", type=int, help="runs at a time (default: one for each GPU, or core without)"
    )
    parser.add_argument(
        "--gpus",
        help="GPUs to use, such as 0,1; 0+1,2+3 for two to a run; or none (default: all visible)",
    )
    parser.add_argument(
        "--per-gpu", type=int, default=1, help="runs that share a GPU (default: %(default)s)"
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of sbatch, such as partition=gpu, time=240, gpus_per_node=1 (repeatable)",
    )


def engine_of(args: argparse.Namespace, output: Path) -> Callable[[], Engine]:
    """Return the constructor of the engine for a grid's folder, its arguments bound.

    Raises:
        UserError: If the options of :func:`add_engine_options` are wrong.
    """
    parameters = dict(map(_parameter, args.slurm))
    if args.engine == "slurm":
        from pretzel.ablation.engines.slurm import Slurm

        if args.slots is not None and args.slots < 1:
            raise UserError(f"--slots must be at least 1, got {args.slots}")
        return partial(Slurm, output / "slurm", args.slots or 256, parameters)
    if parameters:
        raise UserError("--slurm is for --engine slurm")
    slots = device_slots(args.slots, _gpus(args.gpus), args.per_gpu)
    if args.engine == "processes":
        from pretzel.ablation.engines.processes import Processes

        return partial(Processes, slots)

    from pretzel.ablation.engines.fork_server import Forks

    return partial(Forks, slots)


def _parameter(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UserError(f"--slurm must be KEY=VALUE, got {text!r}")
    return name, yaml.safe_load(value)


def _gpus(text: str | None) -> list[list[int]] | None:
    """Return the GPUs that each run sees: ``0,1`` for one each, ``0+1,2+3`` for two each."""
    if text is None:
        return None
    if text == "none":
        return []
    try:
        return [[int(gpu) for gpu in group.split("+")] for group in text.split(",")]
    except ValueError as error:
        raise UserError(
            f"--gpus must be numbers such as 0,1, groups such as 0+1,2+3, or none, got {text!r}"
        ) from error
