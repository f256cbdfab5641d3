"""Differences between two runs, from the records in their folders."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretzel.ablation.identity.source_code import file_of
from pretzel.errors import UserError
from pretzel.files.atomic import write_text

SNAPSHOTS = "source"
"""Folder of a grid's source files, each under its hash."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Differences between two records of :meth:`Fingerprint.record` (:mod:`.fingerprint`).

    Attributes:
        config: ``key: old -> new``, a line each.
        data: ``file: old hash -> new hash``.
        versions: ``library: old -> new``.
        modules: Hashes (old, new) of the modules whose code differs; None where there is none.
    """

    config: list[str]
    data: list[str]
    versions: list[str]
    modules: dict[str, tuple[str | None, str | None]]

    def __bool__(self) -> bool:
        return bool(self.lines())

    @property
    def code(self) -> list[str]:
        """Names of the modules whose code differs, and how."""
        return [f"{module}: {_how(*hashes)}" for module, hashes in self.modules.items()]

    def lines(self) -> list[str]:
        """Return them as text."""
        named = {"data": self.data, "version of": self.versions, "code of": self.code}
        return [*self.config, *(f"{kind} {line}" for kind in named for line in named[kind])]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Differences:
    """Return what differs between two records."""
    return Differences(
        config=changes(old.get("config", {}), new.get("config", {})),
        data=_lines(old.get("data", {}), new.get("data", {})),
        versions=_lines(old.get("versions", {}), new.get("versions", {})),
        modules=_differing(modules_of(old), modules_of(new)),
    )


def modules_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of each module of a record by its name."""
    return {**record.get("measuring_modules", {}), **record.get("modules", {})}


def changes(base: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return what differs between two configurations, one line each: ``key: old -> new``."""
    old, new = _flatten(dict(base)), _flatten(dict(other))
    for key in old.keys() & new.keys():
        if old[key] != new[key] and _classes(old[key]) == _classes(new[key]) != []:
            # lists of the same classes: told item by item
            for values in (old, new):
                for number, item in enumerate(values.pop(key)):
                    values |= _flatten(item, f"{key}.{number}")
    swapped = [
        key.removesuffix(".class_path")
        for key in old.keys() | new.keys()
        if key.endswith(".class_path") and old.get(key) != new.get(key)
    ]
    lines = []
    for key in sorted(old.keys() | new.keys()):
        node = key.removesuffix(".class_path")
        is_inside = any(key.startswith(f"{n}.") and key != f"{n}.class_path" for n in swapped)
        is_equal = key in old and key in new and old[key] == new[key]
        # a class in the place of null is told with its class_path
        is_told = node in swapped and key == node
        if is_equal or is_inside or is_told:
            continue
        before, after = old.get(key), new.get(key)
        appended = (
            after[len(before) :] if isinstance(before, list) and isinstance(after, list) else []
        )
        if before and appended and after == before + appended:
            lines.append(f"{node}: {_short(appended)} appended")
        else:
            lines.append(f"{node}: {_short(before)} -> {_short(after)}")
    return lines


def _flatten(values: object, at: str = "") -> dict[str, Any]:
    """Return the leaves by dotted key, without the ``init_args`` in between."""
    if isinstance(values, dict) and values:
        leaves: dict[str, Any] = {}
        for key, value in values.items():
            inner = at if key == "init_args" else f"{at}.{key}" if at else str(key)
            leaves |= _flatten(value, inner)
        return leaves
    return {at: values}


def _classes(value: object) -> list[str]:
    """Return the classes of a list of class nodes; none of anything else."""
    items = value if isinstance(value, list) else []
    names = [item.get("class_path") for item in items if isinstance(item, dict)]
    return [str(name) for name in names] if all(names) and len(names) == len(items) else []


def _short(value: object) -> str:
    if value == [] or _classes(value):
        return f"[{', '.join(name.rpartition('.')[2] for name in _classes(value))}]"
    text = value.rpartition(".")[2] if isinstance(value, str) and "/" not in value else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def snapshot(record: Mapping[str, Any], folder: Path) -> None:
    """Keep the source of a record's modules in a grid's output folder, each file once.

    Raises:
        UserError: If it cannot be written.
    """
    for name, digest in modules_of(record).items():
        kept, path = folder / SNAPSHOTS / f"{digest}.py", file_of(name)
        if path is not None and not kept.exists():
            write_text(kept, path.read_text(encoding="utf-8"))


def kept_source(folder: Path, digest: str) -> Path | None:
    """Return a source file that a grid's output folder has kept, if it has.

    The folder may be a stranger's, and the hash from one of its files.

    Raises:
        UserError: If it is no hash, or the file is a link to elsewhere.
    """
    if not re.fullmatch(r"[0-9a-f]{1,64}", str(digest)):
        raise UserError(f"{folder}: a hash of source code must be hexadecimal, got {digest!r}")
    kept = folder / SNAPSHOTS / f"{digest}.py"
    if not kept.is_file():
        return None
    if kept.resolve().parent != folder.resolve() / SNAPSHOTS:
        raise UserError(f"{kept}: source code must lie in the grid's folder, this is a link")
    return kept


def patch(differences: Differences, old: Path, new: Path | None) -> Iterator[str]:
    """Yield the source that differs as a unified diff.

    The folders are the output folders of the grids of both runs; without a new one, the source as
    it is now is compared.
    """
    for name, (before, after) in differences.modules.items():
        path = file_of(name) if new is None or after is None else kept_source(new, after)
        first = _text(kept_source(old, before) if before else None)
        second = _text(path if after else None)
        file = name.replace(".", "/") + ".py"
        yield from difflib.unified_diff(
            first, second, fromfile=f"a/{file}", tofile=f"b/{file}", lineterm=""
        )


def _text(path: Path | None) -> list[str]:
    if path is None or not path.is_file():
        return []
    return path.read_text(encoding="utf-8").splitlines()


def _differing(
    old: Mapping[str, str], new: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    pairs = {name: (old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _lines(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    pairs = _differing(old, new).items()
    return [f"{name}: {before or 'none'} -> {after or 'none'}" for name, (before, after) in pairs]


def _how(old: str | None, new: str | None) -> str:
    if old is None:
        return "new"
    return "no longer used" if new is None else "changed"
