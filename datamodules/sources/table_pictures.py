"""Pictures that a table names, each with all that its rows say of it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from datamodules.decoding.excerpt import excerpt
from datamodules.decoding.questions import ENTRY_FIELDS
from datamodules.reading.archive import MEDIA_SUFFIXES, unicode_name
from datamodules.sources.pictures import PictureFiles, pictures_in
from datamodules.sources.table import IMAGE_ID, TEXT_TABLES, Row
from pretzel.errors import UserError, did_you_mean

PATH_FIELDS = ("path", "image", "file_name", "filename")
"""Columns of the paths of pictures, unless another one is named; the first that is not empty."""

_LISTS = ("answer", "answers", "choices", "questions", "conversations")
_KEPT = (*_LISTS, *ENTRY_FIELDS)
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Names of the columns of a table.

    Attributes:
        path: Column of the pictures' paths; those of :data:`PATH_FIELDS` if None.
        captions: Columns of captions.
        questions: The columns of ``question``, ``answer`` and ``questions``.
    """

    path: str | None
    captions: Sequence[str]
    questions: Mapping[str, str]

    def samples(self, table: str, rows: Sequence[Row], root: Path) -> list[PictureFiles]:
        """Return the samples of a table: its pictures, each with all rows about it, in order.

        A row that names no picture is a sample without one.

        Args:
            table: Name of the table.
            rows: Its rows.
            root: Folder that the paths begin at.

        Raises:
            UserError: If there is no column of paths, a path leads out of the folder, or a value
                has no form in JSON.
        """
        self._check(table, rows)
        is_numbered = any(self._value(row) is None and self._has_number(row) for row in rows)
        by_number = _by_number(root) if is_numbered else {}
        by_path: dict[str, list[Row]] = {}
        for number, row in enumerate(rows, start=1):
            value, place = self._value(row), f"row {number}"
            if value is None and self._has_number(row):
                image = str(row[IMAGE_ID])
                path = by_number.get(_plain(image), image)
            elif isinstance(value, str | int):
                path = _relative(str(value), f"{place} of {table!r}", root) or place
            else:
                path = place if value is None else f"{place}: {excerpt(value)}"
            by_path.setdefault(path, []).append(row)
        in_text = Path(table).suffix.lower() in TEXT_TABLES
        return [_sample(path, self._json(table, path, of, in_text)) for path, of in by_path.items()]

    @property
    def _paths(self) -> tuple[str, ...]:
        return PATH_FIELDS if self.path is None else (self.path,)

    def _check(self, table: str, rows: Sequence[Row]) -> None:
        if rows and not any(
            self._has_number(row) or any(name in row for name in self._paths) for row in rows
        ):
            raise UserError(
                f"table {table!r} has no column {' or '.join(map(repr, self._paths))}, path_field: "
                f"{', '.join(map(repr, rows[0]))}{did_you_mean(self._paths[0], map(str, rows[0]))}"
            )

    def _value(self, row: Row) -> Any:  # noqa: ANN401
        """Return what a row holds in the place of a path, None if nothing."""
        return next((row[name] for name in self._paths if row.get(name) not in (None, "")), None)

    def _has_number(self, row: Row) -> bool:
        return self.path is None and IMAGE_ID in row

    def _json(self, table: str, path: str, rows: list[Row], in_text: bool) -> bytes:
        try:
            return json.dumps(self._fields(rows, in_text), sort_keys=True).encode()
        except (TypeError, ValueError, RecursionError) as error:
            why = " ".join(str(error).split())
            raise UserError(f"table {table!r}, {path}: no form in JSON ({why})") from None

    def _fields(self, rows: list[Row], in_text: bool) -> dict[str, Any]:
        """Return the fields of one picture: captions and questions of all its rows, in order."""
        named = [self._renamed(row, in_text) for row in rows]
        if len(named) == 1:
            return named[0]
        fields: dict[str, Any] = {}
        for name in self.captions:
            captions = [text for row in named for text in _listed(row.get(name)) if text]
            if captions:
                fields[name] = [c for place, c in enumerate(captions) if c not in captions[:place]]
        entries = [entry for row in named for entry in _listed(row.get("questions"))]
        entries += [
            row for row in named if "question" in row and ("answer" in row or "answers" in row)
        ]
        if entries:
            fields["questions"] = entries
        if conversations := [row["conversations"] for row in named if "conversations" in row]:
            fields["conversations"] = conversations
        return fields

    def _renamed(self, row: Row, in_text: bool) -> dict[str, Any]:
        columns = {name: name for name in _KEPT} | dict(self.questions)
        fields = {name: row[own] for name, own in columns.items() if own in row}
        if in_text:
            fields |= {name: _parsed(fields[name]) for name in _LISTS if name in fields}
        fields = {name: value for name, value in fields.items() if value not in (None, "")}
        if isinstance(fields.get("answer"), list):
            fields["answers"] = fields.pop("answer")
        return fields | {name: row[name] for name in self.captions if row.get(name) is not None}


def _relative(path: str, place: str, root: Path) -> str:
    """Return a path in the folder of pictures, nothing if it is the folder itself."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts:
        raise UserError(
            f"{place}: path {path!r} leads out of the folder of pictures, {str(root)!r}"
        )
    return "/".join(parts)


def _sample(path: str, fields: bytes) -> PictureFiles:
    """Return the sample of a picture, which is one whatever its name ends in."""
    stem, _, suffix = path.rpartition(".")
    if not stem or suffix.lower() not in MEDIA_SUFFIXES:
        stem, suffix = path, MEDIA_SUFFIXES[0]
    return PictureFiles(key=unicode_name(stem), files=((suffix.lower(), path),), fields=fields)


def _by_number(root: Path) -> dict[str, str]:
    """Return paths of pictures by the number at the end of their names, and by their names."""
    paths: dict[str, str] = {}
    for picture in pictures_in(root):
        path = next(path for suffix, path in picture.files if suffix in MEDIA_SUFFIXES)
        name = PurePosixPath(picture.key).name
        if match := _NUMBER.search(name):
            number = _plain(match[1])
            other = paths.setdefault(number, path)
            if other != path:
                raise UserError(
                    f"images {str(root)!r} must be a folder in which image_id names one picture: "
                    f"{other!r} and {path!r} both end in {number}"
                )
        paths.setdefault(name, path)
    return paths


def _plain(number: str) -> str:
    """Return a number without zeros in front, any other text as it is."""
    return (number.lstrip("0") or "0") if number.isdecimal() else number


def _parsed(value: Any) -> Any:  # noqa: ANN401
    """Return a value of a CSV that holds a list in JSON as that list, any other as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _listed(value: Any) -> list[Any]:  # noqa: ANN401
    """Return a list as it is, anything else as a list of it, nothing of None."""
    return value if isinstance(value, list) else [] if value is None else [value]
