"""The plan of a grid as its files are now: the saved one as long as none of them has changed."""

import contextlib
from pathlib import Path
from typing import Any

from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.identity.changed_code import changed_runs
from pretzel.ablation.plan_file import read_plan
from pretzel.errors import UserError
from pretzel.files.atomic import write_json
from pretzel.files.content_hash import file_hash

_PLANNED_AGAIN = "plan_now.json"
"""A plan that was made to be looked at; ``plan.json`` stays that of what was run."""


def current_plan(grid: Grid) -> tuple[dict[str, Any] | None, str]:
    """Return what ``plan.json`` would hold now, None if nothing was started, and a remark.

    Where a file of the configuration has changed the grid is planned again, with all imports that
    this takes, once after each change. The remark says why that cannot be done, if so.

    Raises:
        UserError: If ``plan.json`` is not what a grid writes.
    """
    plan = read_plan(grid.output)
    if plan is None or not _has_changed(plan):
        return plan, ""
    with contextlib.suppress(UserError):
        again = read_plan(grid.output, _PLANNED_AGAIN)
        if again and not _has_changed(again) and not any(changed_runs(again, grid.output)):
            return again, ""

    from pretzel.ablation.planning.grid_to_plan import plan_grid
    from pretzel.ablation.planning.progress import planning_progress

    try:
        with planning_progress() as progress:
            again = plan_grid(grid, progress).record()
    except UserError as error:
        why = str(error).replace("\n", " ")
        return plan, f"planned before its files have changed, and it cannot be planned now: {why}"
    with contextlib.suppress(UserError):  # who may only look plans anew each time
        write_json(grid.output / _PLANNED_AGAIN, again)
    return again, ""


def _has_changed(plan: dict[str, Any]) -> bool:
    try:
        return any(file_hash(Path(name)) != own for name, own in plan.get("files", {}).items())
    except OSError:  # it is gone
        return True
