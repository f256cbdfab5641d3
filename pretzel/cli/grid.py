"""The commands ``pretzel grid ...``."""

import argparse
import json
from pathlib import Path

from pretzel.ablation.engines.device_slots import num_cores
from pretzel.ablation.engines.options import add_engine_options, engine_of
from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.gridfile.schema import grid_schema
from pretzel.cli.failure_options import add_failure_options
from pretzel.cli.parser import Parser
from pretzel.errors import UserError


def grid(args: list[str]) -> int:
    """Run ``pretzel grid``."""
    options = build_parser().parse_args(args)
    if options.command == "board":
        return _board(options.grid, options.port)
    if options.command == "schema":
        print(json.dumps(grid_schema(), indent=2))
        return 0
    grid = load(options.file)  # before torch: mistakes of the file are told at once
    if options.command == "status":
        return _status(grid, watch=options.watch)
    if options.command == "plan":
        return _plan(grid, probe=options.probe, as_json=options.json)
    if options.command in ("why", "adopt", "gc"):
        from pretzel.ablation.execution import commands

        command = {"why": commands.why, "adopt": commands.adopt, "gc": commands.gc}
        return command[options.command](grid, options)
    return _run(grid, options)


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(prog="pretzel grid", description="Plan, run and watch an ablation grid.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.add_argument("file", help="the grid's YAML file")
        return added

    plan = command("plan", "parse every run and show what each arm changes")
    plan.add_argument(
        "--probe", action="store_true", help="train a few steps of each arm to estimate the time"
    )
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")
    run = command("run", "train and test what is not done; continues after a kill")
    run.add_argument(
        "--only", action="append", metavar="RUN", help="an arm, a run or a pattern (repeatable)"
    )
    rerun = command("rerun", "train runs again from the beginning")
    rerun.add_argument("runs", nargs="*", help="arms, runs or patterns such as 'stacked/*'")
    rerun.add_argument("--stale", action="store_true", help="those finished with another setup")
    rerun.add_argument("--failed", action="store_true", help="those that failed")
    evaluate = command("evaluate", "measure trained runs by new metrics; trains nothing")
    for one in (run, rerun, evaluate):
        add_engine_options(one)
        add_failure_options(one)
    status = command("status", "show what is done, running and failed")
    status.add_argument(
        "--watch", action="store_true", help="keep showing it until nothing is left or Ctrl-C"
    )
    why = command("why", "tell what differs from what a run was trained with")
    why.add_argument("--patch", action="store_true", help="show the source code that differs")
    adopt = command("adopt", "accept results in spite of what differs, and record that")
    adopt.add_argument("--because", default="", help="the reason, for the record")
    for one in (why, adopt):
        one.add_argument("runs", nargs="+", help="arms, runs or patterns such as 'stacked/*'")
    gc = command("gc", "list what the grid no longer needs")
    gc.add_argument("--delete", action="store_true", help="remove it")
    board = commands.add_parser("board", help="TensorBoard over the grid, on loopback")
    board.add_argument("grid", help="a grid's YAML file, or a folder of runs such as runs/")
    board.add_argument(
        "--port", type=int, help="on 127.0.0.1 (6006 or the next that is free; 0: any)"
    )
    commands.add_parser("schema", help="print the JSON Schema of a grid file, for editors")
    return parser


def _board(grid: str, port: int | None) -> int:
    folder = Path(grid)
    if not folder.is_dir():
        folder = load(grid).output
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; start with: pretzel grid run {grid}")

    from pretzel.ablation.report.tensorboard_server import serve

    serve(folder, port)
    return 0


def _status(grid: Grid, *, watch: bool) -> int:
    from rich.console import Console

    from pretzel.ablation.current_plan import current_plan
    from pretzel.ablation.execution.live_view import follow, left
    from pretzel.ablation.status_table import StateTable, StatusRow, plan_title, twins

    output = grid.output
    plan, remark = current_plan(grid)
    if plan is None:
        print(f"{output}: not started; start with: pretzel grid run {grid.file}")
        return 0

    if watch:
        follow(output, lambda: StatusRow.of_plan(output, plan), lambda rows: twins(plan, rows))
    rows, console = StatusRow.of_plan(output, plan), Console()
    whole = not console.is_terminal  # output in a pipe is for grep
    title, remarks = plan_title(output, plan), [*([remark] if remark else []), *twins(plan, rows)]
    table = StateTable(rows, title, whole=whole, left=left(rows), remarks=remarks)
    console.print(table, end="", crop=not whole)
    return 0


def _plan(grid: Grid, *, probe: bool, as_json: bool) -> int:
    from pretzel.ablation.planning.grid_to_plan import plan_grid
    from pretzel.ablation.planning.print_plan import print_plan, print_plan_json
    from pretzel.ablation.planning.progress import planning_progress
    from pretzel.ablation.planning.time_estimate import estimate_time, probe_all

    with planning_progress() as progress:
        plan = plan_grid(grid, progress)
    states = {run.name: plan.state(run) for run in plan.runs}
    time = estimate_time(plan, states)
    if probe:
        time = estimate_time(plan, states, probe_all(plan, time.unknown))
    if as_json:
        print_plan_json(plan, states, time)
    else:
        print_plan(plan, states, time, num_cores())
    return 0


def _run(grid: Grid, options: argparse.Namespace) -> int:
    make = engine_of(options, grid.output)  # before torch: what it refuses is said at once
    engine = make()
    try:
        print(f"{grid.file}: parsing all runs before anything starts", flush=True)

        from pretzel.ablation.execution import commands

        command = {
            "run": commands.run_grid,
            "rerun": commands.rerun,
            "evaluate": commands.evaluate,
        }
        code = command[options.command](grid, options, engine)
    finally:
        engine.close()

    from pretzel.ablation.report.grid_report import Report

    output = grid.output
    report = Report(output)
    report.save_if_possible()
    print(f"\n{report.text('markdown')}")
    print(f"This table:  {output}/compare.md; as a page with curves and pictures: compare.html")
    print(f"Runs:        {output}/ARM/seedN (logs, pictures in TensorBoard, final.ckpt)")
    print(f"TensorBoard: pretzel grid board {grid.file}")
    if code:
        print(f"Some runs failed: pretzel grid status {grid.file}; run again to retry them.")
    return code
