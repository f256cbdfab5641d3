"""Runs whose source code is not as it was when they were planned; no module is imported."""

import contextlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pretzel.ablation.identity.differences import SNAPSHOTS
from pretzel.ablation.identity.source_code import code_digest


def changed_runs(plan: Mapping[str, Any], output: Path) -> tuple[set[str], set[str]]:
    """Return the names of the runs whose code has changed: what trains them, and what measures.

    What a run starts from counts as its training.

    Args:
        plan: The content of ``plan.json``.
        output: The grid's output folder, where the source of its runs is kept.
    """
    groups = plan.get("code", ())
    hashes = {pair for group in groups for pair in group["modules"].items()}
    changed = {(name, digest) for name, digest in hashes if not _is_same(name, digest, output)}
    trains: set[str] = set()
    measures: set[str] = set()
    for group in groups:
        if not changed.isdisjoint(group["modules"].items()):
            trains.update(group["trains"])
            measures.update(group["measures"])
    for run in plan["runs"]:  # each stands behind those that it needs
        if not trains.isdisjoint(run.get("needs", ())):
            trains.add(run["name"])
    return trains, measures


def _is_same(module: str, digest: str, output: Path) -> bool:
    path = next((path for path in _places(module) if path.is_file()), None)
    if path is None:
        return False
    source = path.read_bytes()
    with contextlib.suppress(OSError):  # of a run that was never started none is kept
        if source == (output / SNAPSHOTS / f"{digest}.py").read_bytes():
            return True  # most of them: they need not be parsed
    with contextlib.suppress(SyntaxError):
        return code_digest(source) == digest
    return False


@cache
def _places(module: str) -> tuple[Path, ...]:
    """Return where the source of a module may be, below its package on the import path."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)  # which imports nothing
    if spec is None:
        return ()
    if spec.submodule_search_locations is None:
        return (Path(spec.origin or ""),)
    places = [Path(folder, *inner) for folder in spec.submodule_search_locations]
    return tuple(path for one in places for path in (one / "__init__.py", one.with_suffix(".py")))
