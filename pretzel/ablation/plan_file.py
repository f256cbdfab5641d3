"""``plan.json`` in the output folder of a grid, as the light commands read it."""

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from pretzel.ablation.gridfile.schema import Direction
from pretzel.errors import UserError

PLAN = "plan.json"


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("must be a folder inside the grid's")
    return name


class _Read(BaseModel):
    model_config = ConfigDict(strict=True)


class _Run(_Read):
    name: Annotated[str, AfterValidator(_inside)]
    arm: str
    seed: int | None
    identity: str
    evaluation: str | None = None
    needs: list[str] = []
    candidates: dict[str, str] = {}
    trained_by: str | None = None


class _Arm(_Read):
    choices: dict[str, str]
    changes: list[str]
    absent: dict[str, str] = {}


class _Rule(_Read):
    metric: str
    direction: Direction
    seed: int | None = None


class _Code(_Read):
    modules: dict[str, str]
    trains: list[str]
    measures: list[str]


class _Plan(_Read):
    """Fields that the commands read; the file has more, for people."""

    grid: str = ""
    baseline: str
    axes: dict[str, list[str]]
    metrics: dict[str, Direction]
    seeds: list[int]
    tuning: _Rule | None = None
    arms: dict[str, _Arm]
    runs: list[_Run]
    files: dict[str, str] = {}
    code: list[_Code] = []

    @model_validator(mode="after")
    def _check_names(self) -> "_Plan":
        arms = {self.baseline, *(run.arm for run in self.runs if run.seed is not None)}
        runs = {name for run in self.runs for name in (*run.needs, *run.candidates)}
        missing = [*(arms - self.arms.keys()), *(runs - {run.name for run in self.runs})]
        if missing:
            raise ValueError(f"it names {sorted(missing)[0]}, and does not say what that is")
        return self


def read_plan(output: Path, name: str = PLAN) -> dict[str, Any] | None:
    """Return the plan in a file of the output folder of a grid; None if there is none.

    Raises:
        UserError: If it cannot be read, or is not what a grid writes.
    """
    path = output / name
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except RecursionError:
        raise _damaged(path, "nested too deeply") from None
    except (OSError, ValueError) as error:
        raise _damaged(path, f"not JSON ({error})") from error
    try:
        _Plan.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
        reason = reason.replace("Field required", "is missing")
        if first["type"] == "model_type":
            reason = "must be a mapping"
        raise _damaged(path, f"{where}: {reason}" if where else reason) from error
    return dict(values)


def _damaged(path: Path, reason: str) -> UserError:
    advice = "running the grid again writes it anew, and keeps what is done"
    return UserError(f"{path}: no plan of a grid: {reason}; {advice}")
