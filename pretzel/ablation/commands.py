"""The commands ``pretzel grid plan | run | status`` and ``pretzel compare``.

Only ``plan`` and ``run`` import torch.
"""

import os
from pathlib import Path

from pretzel.commandline import Parser
from pretzel.errors import UserError


def grid(args: list[str]) -> int:
    """Run ``pretzel grid``.

    Args:
        args: ``plan``, ``run`` or ``status``, the grid file and options.

    Returns:
        The exit code.

    Raises:
        UserError: For users' mistakes.
    """
    parser = Parser(prog="pretzel grid", description="Plan, run and watch an ablation grid.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    plan = commands.add_parser("plan", help="parse every cell and show what each arm changes")
    run = commands.add_parser("run", help="train and test what is not done; continues after a kill")
    status = commands.add_parser("status", help="show what is done, running and failed")
    for command in (plan, run, status):
        command.add_argument("file", help="the grid's YAML file")
    run.add_argument("--slots", type=int, default=_cores(), help="cells at a time (%(default)s)")
    run.add_argument(
        "--rerun-stale",
        action="store_true",
        help="run finished cells again whose configuration has changed",
    )
    given = parser.parse_args(args)
    if given.command == "status":
        return _status(given.file)
    if given.command == "plan":
        return _plan(given.file)
    if given.slots < 1:
        raise UserError(f"--slots must be at least 1, got {given.slots}")
    return _run(given.file, given.slots, given.rerun_stale)


def compare(args: list[str]) -> int:
    """Run ``pretzel compare``: print the table and write it and HParams into the folder.

    Args:
        args: The output folder of a grid, and options.

    Returns:
        The exit code.

    Raises:
        UserError: For users' mistakes.
    """
    parser = Parser(prog="pretzel compare", description="Compare the arms of a grid.")
    parser.add_argument("folder", help="the grid's output folder, such as runs/quickstart")
    parser.add_argument("--format", choices=["markdown"], default="markdown")
    given = parser.parse_args(args)
    print(_compare(Path(given.folder)))
    return 0


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))  # what a container or a scheduler leaves us
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _compare(folder: Path) -> str:
    from pretzel.ablation import compare, hparams

    comparison = compare.load(folder)
    text = compare.write(comparison)
    hparams.write(comparison)
    return text


def _status(file: str) -> int:
    from rich.console import Console

    from pretzel.ablation.gridfile import load
    from pretzel.ablation.ledger import CellFolder, read_json
    from pretzel.ablation.view import Row, table

    output = load(file).output
    plan = read_json(output / "plan.json")
    if plan is None:
        print(f"{output}: not started; start with: pretzel grid run {file}")
        return 0
    rows = [
        Row.of(
            cell["name"],
            CellFolder(path=output / cell["name"]),
            cell["identity"],
            [*plan["metrics"]],
        )
        for cell in plan["cells"]
    ]
    Console().print(table(rows, str(output)))
    return 0


def _plan(file: str) -> int:
    from rich.console import Console

    from pretzel.ablation.gridfile import load
    from pretzel.ablation.planner import make
    from pretzel.ablation.run import folder_of
    from pretzel.ablation.view import Row, table

    plan = make(load(file))
    console = Console()
    names = [metric.name for metric in plan.grid.metrics]
    rows = [Row.of(cell.name, folder_of(plan, cell), cell.identity, names) for cell in plan.runs]
    console.print(table(rows, f"{plan.grid.output}: {len(rows)} runs"))
    for arm, changes in plan.changes.items():
        told = "the baseline" if arm == plan.grid.baseline_name else "; ".join(changes)
        console.print(f"{arm}: {told}", markup=False, highlight=False, soft_wrap=True)
        for link, reason in plan.absent[arm].items():
            told = f"{arm}: {link or 'all of it'}: n/a: {reason}"
            console.print(told, markup=False, highlight=False, soft_wrap=True)
    return 0


def _run(file: str, slots: int, rerun_stale: bool) -> int:
    from pretzel.ablation.gridfile import load

    given = load(file)
    print(f"{file}: parsing all cells before anything starts", flush=True)

    from pretzel.ablation.planner import make
    from pretzel.ablation.run import run

    code = run(make(given), slots=slots, rerun_stale=rerun_stale)
    output = given.output
    print(f"\n{_compare(output)}")
    print(f"This table:  {output}/compare.md")
    print(f"Runs:        {output}/ARM/seedN (logs, pictures in TensorBoard, final.ckpt)")
    print(f"TensorBoard: tensorboard --logdir {output} --host 127.0.0.1   (or: make board)")
    if code:
        print(f"Some cells failed: pretzel grid status {file}; run again to retry them.")
    return code
