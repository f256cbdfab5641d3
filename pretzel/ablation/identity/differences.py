"""Differences between two runs, from the records in their folders."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretzel.ablation.identity.config_changes import changes
from pretzel.ablation.identity.source_code import file_of
from pretzel.files.atomic import write_text

SNAPSHOTS = "source"
"""Folder of a grid's source files, each under its hash."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Differences between two records of :meth:`Fingerprint.record` (:mod:`.fingerprint`).

    Attributes:
        config: ``key: old -> new``, a line each.
        data: Files that were changed, added or removed.
        versions: ``library: old -> new``.
        modules: Hashes (old, new) of the modules whose code differs; None where there is none.
    """

    config: tuple[str, ...]
    data: tuple[str, ...]
    versions: tuple[str, ...]
    modules: dict[str, tuple[str | None, str | None]]

    def __bool__(self) -> bool:
        """Tell whether anything differs."""
        return bool(self.config or self.data or self.versions or self.modules)

    def lines(self) -> list[str]:
        """Return them as text."""
        return [
            *self.config,
            *(f"data {line}" for line in self.data),
            *(f"version of {line}" for line in self.versions),
            *(f"code of {module}: {_how(*pair)}" for module, pair in self.modules.items()),
        ]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Differences:
    """Return what differs between two records."""
    before = {**old.get("measuring_modules", {}), **old.get("modules", {})}
    after = {**new.get("measuring_modules", {}), **new.get("modules", {})}
    return Differences(
        config=tuple(changes(old.get("config", {}), new.get("config", {}))),
        data=tuple(_changed(old.get("data", {}), new.get("data", {}))),
        versions=tuple(_changed(old.get("versions", {}), new.get("versions", {}))),
        modules={
            name: (before.get(name), after.get(name))
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        },
    )


def snapshot(record: Mapping[str, Any], folder: Path) -> None:
    """Keep the source of a record's modules, each file once.

    Args:
        record: From :meth:`pretzel.ablation.identity.fingerprint.Fingerprint.record`.
        folder: The grid's output folder.

    Raises:
        UserError: If it cannot be written.
    """
    for modules in (record["modules"], record["measuring_modules"]):
        for name, digest in modules.items():
            kept, path = folder / SNAPSHOTS / f"{digest}.py", file_of(name)
            if path is not None and not kept.exists():
                write_text(kept, path.read_text(encoding="utf-8"))


def patch(differences: Differences, old: Path, new: Path | None) -> Iterator[str]:
    """Yield the source that differs as a unified diff.

    Args:
        differences: From :func:`differences`.
        old: Output folder of the grid of the first run.
        new: That of the second one; None for the source as it is now.
    """
    for name, (before, after) in differences.modules.items():
        path = file_of(name) if new is None else new / SNAPSHOTS / f"{after}.py"
        first = _text(old / SNAPSHOTS / f"{before}.py" if before else None)
        second = _text(path if after else None)
        file = name.replace(".", "/") + ".py"
        yield from difflib.unified_diff(
            first, second, fromfile=f"a/{file}", tofile=f"b/{file}", lineterm=""
        )


def _text(path: Path | None) -> list[str]:
    if path is None or not path.is_file():
        return []
    return path.read_text(encoding="utf-8").splitlines()


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name}: {old.get(name, 'none')} -> {new.get(name, 'none')}"


def _how(old: str | None, new: str | None) -> str:
    if old is None:
        return "new"
    return "no longer used" if new is None else "changed"
