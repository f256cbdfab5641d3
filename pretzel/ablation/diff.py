"""``pretzel diff A B``: two runs, or two arms, side by side."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pretzel.ablation.identity.differences import Differences, differences, patch
from pretzel.ablation.ledger import RunFolder
from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Side:
    """One run, or the runs of an arm.

    Attributes:
        path: The folder that the user named.
        output: The grid's folder, where sources are kept.
        cells: The folders of its runs, by seed.
    """

    path: Path
    output: Path
    cells: tuple[RunFolder, ...]

    @classmethod
    def of(cls, path: Path) -> "Side":
        """Return what a folder holds.

        Raises:
            UserError: If neither a run nor runs of an arm are there.
        """
        specs = [path / "cell.json"] if (path / "cell.json").is_file() else []
        specs = specs or sorted(path.glob("*/cell.json"))
        if not specs:
            raise UserError(
                f"{path}: no run there; name the folder of a run (runs/GRID/ARM/seed0) or of an "
                "arm (runs/GRID/ARM)"
            )
        output = next(
            (up for up in (path, *path.resolve().parents) if (up / "plan.json").is_file()), path
        )
        return cls(path=path, output=output, cells=tuple(RunFolder(path=s.parent) for s in specs))

    @property
    def record(self) -> dict[str, Any]:
        """What its first run was run with."""
        fingerprint: dict[str, Any] = (self.cells[0].spec or {}).get("fingerprint", {})
        return fingerprint

    def metrics(self) -> dict[str, float]:
        """Return the means of its metrics over the runs that have them."""
        found: dict[str, list[float]] = {}
        for cell in self.cells:
            for name, value in (cell.result or {}).get("metrics", {}).items():
                found.setdefault(name, []).append(value)
        return {name: fmean(values) for name, values in found.items()}


def diff(first: Path, second: Path, *, whole_patch: bool) -> str:
    """Return what differs between two runs or arms: configuration, code, versions, metrics.

    Args:
        first: Folder of a run or of an arm.
        second: Another one, of the same grid or not.
        whole_patch: Whether differing source code is shown as a patch.

    Raises:
        UserError: If there are no runs in one of them.
    """
    old, new = Side.of(first), Side.of(second)
    found = differences(old.record, new.record)
    lines = [f"--- {old.path} ({_runs(old)})", f"+++ {new.path} ({_runs(new)})", ""]
    lines += _part("configuration", [line for line in found.config if "seed:" not in line])
    lines += _part("data", found.data)
    lines += _part("versions", found.versions)
    lines += _part("code", _code(found))
    lines += _part("metrics", _metrics(old.metrics(), new.metrics()))
    if whole_patch:
        lines += ["", *patch(found, old.output, new.output)]
    return "\n".join(lines)


def _runs(side: Side) -> str:
    done = sum(cell.result is not None for cell in side.cells)
    return f"{done} of {len(side.cells)} runs finished"


def _part(name: str, lines: Any) -> list[str]:  # noqa: ANN401
    return [f"{name}:", *(f"  {line}" for line in lines or ["no difference"])]


def _code(found: Differences) -> list[str]:
    told = Differences(config=(), data=(), versions=(), modules=found.modules).lines()
    return [line.removeprefix("code of ") for line in told]


def _metrics(old: dict[str, float], new: dict[str, float]) -> list[str]:
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            lines.append(f"{name}: {_told(before)} -> {_told(after)}")
        elif before != after:
            lines.append(f"{name}: {before:.6g} -> {after:.6g} ({after - before:+.3g})")
    return lines


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
