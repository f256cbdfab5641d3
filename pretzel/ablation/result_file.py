"""The file with the results of a run, and the digest by which an edit of it is noticed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pretzel.files.atomic import write_json

RESULT_FILE = "result.json"


class _Weights(BaseModel):
    model_config = ConfigDict(strict=True)
    step: int = 0
    first: str = ""
    final: str = ""


class _Samples(BaseModel):
    model_config = ConfigDict(strict=True)
    sha256: str
    items: int


class _Result(BaseModel):
    """Fields that the commands read; the file has more, for people."""

    model_config = ConfigDict(strict=True)
    identity: str | None = None
    evaluation: str | None = None
    tuned: str | None = None
    metrics: dict[str, float] = {}
    facts: dict[str, dict[str, Any]] = {}
    parameters: dict[str, int] = {}
    versions: dict[str, str] = {}
    weights: _Weights | None = None
    measured: str | None = None
    samples: _Samples | None = None
    steps: int | None = None
    seconds: float = 0.0
    train_seconds: float = 0.0
    step_seconds: float | None = None
    peak_memory_bytes: int | None = None


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write the results of a run, with a digest of them.

    Raises:
        UserError: If they cannot be written.
    """
    write_json(folder / RESULT_FILE, {**result, "digest": _digest(result)})


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the results of a run; None where there are none, or the file is damaged."""
    result = _read(folder)[0]
    return result and {key: value for key, value in result.items() if key != "digest"}


def result_fault(folder: Path) -> str:
    """Return in a clause what is wrong with the file of the results; empty where nothing is.

    A damaged file counts as missing. Results that were edited count.
    """
    result, fault = _read(folder)
    digest = (result or {}).pop("digest", None)
    if result is None or digest in (None, _digest(result)):  # older runs have recorded none
        return fault
    return f"{RESULT_FILE} was edited after the run had written it"


def _read(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the content of the file, None where it counts as missing, and why it does."""
    try:
        text = (folder / RESULT_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, ""
    except (OSError, UnicodeDecodeError) as error:
        return None, f"{RESULT_FILE} counts as missing: it cannot be read ({error})"
    try:
        result = json.loads(text)
    except (ValueError, RecursionError):
        return None, f"{RESULT_FILE} counts as missing: it is not valid JSON"
    try:
        _Result.model_validate(result)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}, got {json.dumps(first['input'])[:60]}"
        return None, f"{RESULT_FILE} counts as missing: {reason.removeprefix(': ')}"
    return result, ""


def _digest(result: dict[str, Any]) -> str:
    """Return a hash of what the values are in JSON, however that is laid out in the file."""
    values = json.loads(json.dumps(result, default=str))  # as it will be read again
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
