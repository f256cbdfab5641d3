"""Pictures of a folder, found in it or named by a table, with the texts that belong to them."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from datamodules.reading.archive import JSON_SUFFIX, TEXT_SUFFIX
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped, Unusable
from datamodules.sources.table import IMAGE_ID, Row
from pretzel.errors import UserError, did_you_mean
from pretzel.files.content_hash import file_hash
from pretzel.files.image_file import IMAGE_SUFFIXES

PATH_FIELDS = ("path", "image", "file_name", "filename")
"""Columns that hold the paths of pictures, unless another one is named; the first that is there."""

_KEPT = ("question", "answer", "answers", "multiple_choice_answer", "questions", "conversations")
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFiles:
    """The files of one sample, and what a table says of it.

    Attributes:
        key: Path of the picture in the folder, without its suffix.
        files: Paths in the folder by suffix; empty where there is no such picture.
        fields: What ``key.json`` would hold, for a sample of a table.
    """

    key: str
    files: Mapping[str, str]
    fields: Mapping[str, Any] | None = None

    def read(self, shard: str, root: Path) -> RawSample | Skipped:
        """Return the bytes of the sample, or why there are none."""
        try:
            members = {s: _inside(root, path).read_bytes() for s, path in self.files.items()}
        except Unusable as fault:
            return fault.skipped(shard, self.key)
        except OSError as error:
            return Unusable("damaged", f"{error.filename}: {error.strerror}").skipped(
                shard, self.key
            )
        if self.fields is not None:
            members[JSON_SUFFIX] = json.dumps(self.fields).encode()
        return RawSample(shard=shard, key=self.key, members=members)

    def texts(self) -> "PictureFiles":
        """Return the sample without its picture."""
        files = {s: path for s, path in self.files.items() if s in (TEXT_SUFFIX, JSON_SUFFIX)}
        return replace(self, files=files)

    def identity(self, root: Path) -> str:
        """Return key, texts and content hashes of the files."""
        hashes = []
        for suffix, path in self.files.items():
            try:
                hashes.append(f"{suffix} {file_hash(_inside(root, path))}")
            except (Unusable, OSError) as error:
                hashes.append(f"{suffix} {type(error).__name__}")
        return f"{self.key} {json.dumps(self.fields, sort_keys=True)} {' '.join(hashes)}"


def pictures_in(root: Path) -> list[PictureFiles]:
    """Return the pictures of a folder, and of all folders in it, in order of their keys."""
    by_key: dict[str, dict[str, str]] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            stem, _, suffix = name.rpartition(".")
            suffix = suffix.lower()
            known = suffix in IMAGE_SUFFIXES or suffix in (TEXT_SUFFIX, JSON_SUFFIX)
            if known and not name.startswith("."):
                key = (Path(folder) / stem).relative_to(root).as_posix()
                by_key.setdefault(key, {})[suffix] = f"{key}.{name.rpartition('.')[2]}"
    return [
        PictureFiles(key=key, files=files)
        for key, files in sorted(by_key.items())
        if any(suffix in IMAGE_SUFFIXES for suffix in files)
    ]


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Names of the columns of a table.

    Attributes:
        path: Column of the pictures' paths; the first of :data:`PATH_FIELDS` if None.
        captions: Columns of captions.
        questions: The columns of ``question``, ``answer`` and ``questions``.
    """

    path: str | None
    captions: Sequence[str]
    questions: Mapping[str, str] = field(default_factory=dict)

    def samples(self, table: str, rows: Iterable[Row], root: Path) -> list[PictureFiles]:
        """Return the samples of a table: its pictures, each with all rows about it, in order.

        Args:
            table: Name of the table, for messages.
            rows: Its rows.
            root: Folder that the paths begin at.

        Raises:
            UserError: If there is no column of paths, or a path leads out of the folder.
        """
        by_path: dict[str, list[Row]] = {}
        numbered: dict[int | str, str] | None = None
        for number, row in enumerate(rows, start=1):
            if self.path is None and IMAGE_ID in row and not any(row.get(f) for f in PATH_FIELDS):
                numbered = _by_number(root) if numbered is None else numbered
                image = str(row[IMAGE_ID])
                path = numbered.get(int(image) if image.isdecimal() else image, image)
            else:
                path = self._path(table, row)
                parts = PurePosixPath(path).parts
                if path.startswith("/") or ".." in parts:
                    raise UserError(
                        f"row {number} of {table!r}: path {path!r} leads out of the folder of "
                        f"pictures, {str(root)!r}"
                    )
                path = "/".join(parts) or f"row {number}"
            by_path.setdefault(path, []).append(row)
        return [_sample(path, self._fields(rows)) for path, rows in by_path.items()]

    def _path(self, table: str, row: Row) -> str:
        names = PATH_FIELDS if self.path is None else (self.path,)
        name = next((name for name in names if name in row), None)
        if name is None:
            raise UserError(
                f"table {table!r} has no column {' or '.join(map(repr, names))}, path_field: "
                f"{', '.join(map(repr, row))}{did_you_mean(names[0], map(str, row))}"
            )
        return str(row[name] or "")

    def _fields(self, rows: list[Row]) -> dict[str, Any]:
        """Return the fields of one picture: captions and questions of all its rows, in order."""
        named = [self._renamed(row) for row in rows]
        if len(named) == 1:
            return named[0]
        fields: dict[str, Any] = {}
        for name in self.captions:
            if captions := [text for row in named for text in listed(row.get(name)) if text]:
                fields[name] = list(dict.fromkeys(captions))
        for name in ("questions", "conversations"):
            entries = [entry for row in named for entry in listed(row.get(name))]
            if name == "questions":
                entries += [row for row in named if "question" in row]
            if entries:
                fields[name] = entries
        return fields

    def _renamed(self, row: Row) -> dict[str, Any]:
        columns = {name: name for name in _KEPT} | dict(self.questions)
        fields = {name: _parsed(row[own]) for name, own in columns.items() if own in row}
        fields = {name: value for name, value in fields.items() if value not in (None, "")}
        if isinstance(fields.get("answer"), list):
            fields["answers"] = fields.pop("answer")
        return fields | {name: row[name] for name in self.captions if row.get(name) is not None}


def _sample(path: str, fields: dict[str, Any]) -> PictureFiles:
    stem, dot, suffix = path.rpartition(".")
    return PictureFiles(key=stem if dot else path, files={suffix.lower(): path}, fields=fields)


def _inside(root: Path, path: str) -> Path:
    """Return the place of a picture, which must be a file in the folder itself.

    Raises:
        Unusable: If there is no such file, or a link leads out of the folder.
    """
    place = (root / path).resolve()
    if not place.is_relative_to(root.resolve()):
        raise Unusable("no image", f"{path} is a link that leads out of {root}")
    if not place.is_file():
        raise Unusable("no image", f"there is no file {path} in {root}")
    return place


def _by_number(root: Path) -> dict[int | str, str]:
    """Return paths of pictures by the number at the end of their names, and by their names."""
    found: dict[int | str, str] = {}
    for picture in pictures_in(root):
        path = next(path for suffix, path in picture.files.items() if suffix in IMAGE_SUFFIXES)
        name = PurePosixPath(picture.key).name
        if number := _NUMBER.search(name):
            other = found.setdefault(int(number[1]), path)
            if other != path:
                raise UserError(
                    f"{other!r} and {path!r} in {str(root)!r} both end in {int(number[1])}: "
                    "image_id names one picture"
                )
        found.setdefault(name, path)
    return found


def _parsed(value: Any) -> Any:  # noqa: ANN401
    """Return a cell of a CSV that holds a list in JSON as that list, any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def listed(value: Any) -> list[Any]:  # noqa: ANN401
    """Return a list as it is, anything else as a list of it, nothing of None."""
    return value if isinstance(value, list) else [] if value is None else [value]
