"""Tables of pictures with captions and questions: CSV, JSON Lines, JSON, Parquet, VQAv2."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.reading.vqa_files import read_vqa_files
from pretzel.errors import UserError

Row = dict[str, Any]
"""One row of a table by the names of its columns."""

IMAGE_ID = "image_id"
"""Column of VQAv2's files, which name pictures by their number."""

TEXT_TABLES = (".csv", ".tsv")
"""Ends of the names of tables whose values are texts: they hold lists in JSON."""

_LONGEST_VALUE = 2**31 - 1  # characters of a CSV: what is too long is counted with its sample


def read_table(files: Sequence[Path]) -> list[Row]:
    """Return the rows of a table, or of VQAv2's two files: questions, annotations.

    Raises:
        UserError: If a file cannot be read, or is of none of the known forms.
    """
    if len(files) == 2:
        questions = read_vqa_files(*files)
        return [{IMAGE_ID: image, "questions": asked} for image, asked in questions.items()]
    if len(files) > 2:
        raise UserError(f"one table or VQAv2's two files must be given, not {len(files)} files")
    (path,) = files
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"table {str(path)!r} must be one of {', '.join(_READERS)}")
    try:
        return list(reader(path))
    except UserError:
        raise
    # OSError and whatever the readers raise on content of another form.
    except (OSError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"table {str(path)!r} cannot be read: {why}") from None


def _csv(path: Path, delimiter: str = ",") -> Iterator[Row]:
    limit = csv.field_size_limit(_LONGEST_VALUE)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            names = reader.fieldnames or []
            if len(set(names)) < len(names):
                raise ValueError(f"two columns have one name: {', '.join(names)}")
            for row in reader:
                if None in row:
                    raise ValueError(
                        f"line {reader.reader.line_num} has more values than there are columns"
                    )
                yield row
    except csv.Error as error:
        raise ValueError(f"line {reader.reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _tsv(path: Path) -> Iterator[Row]:
    return _csv(path, "\t")


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _row(json.loads(line), f"line {number}")


def _json(path: Path) -> Iterator[Row]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, list):
        raise ValueError(
            "it must hold a list of objects, as LLaVA's; of VQAv2 give the two files "
            "[questions, annotations]"
        )
    return (_row(entry, f"entry {number}") for number, entry in enumerate(content))


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"table {str(path)!r} needs the package pyarrow: pip install 'pretzel-starflow[tables]'"
        ) from None
    rows: list[Row] = parquet.read_table(path).to_pylist()
    return iter(rows)


def _row(entry: Any, place: str) -> Row:  # noqa: ANN401
    if not isinstance(entry, dict):
        raise ValueError(f"{place} is not an object")
    return entry


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
}
TABLES = tuple(_READERS)
"""Ends of the names of tables."""
