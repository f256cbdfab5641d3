"""The file with the results of a run, and the digest by which an edit of it is noticed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pretzel.files.atomic import write_json

RESULT_FILE = "result.json"


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write the results of a run, with a digest of them.

    Raises:
        UserError: If they cannot be written.
    """
    write_json(folder / RESULT_FILE, {**result, "digest": _digest(result)})


def read_result(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the results of a run, None where there are none, and what is wrong with the file.

    A damaged file counts as missing. Results that were edited count, and the clause says so.
    """
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
    odd = _not_numbers(result.get("metrics", {}) if isinstance(result, dict) else result)
    if odd:
        return None, f"{RESULT_FILE} counts as missing: metrics must be numbers by name, got {odd}"
    digest = result.pop("digest", None)
    is_edited = digest not in (None, _digest(result))  # older runs have recorded none
    return result, f"{RESULT_FILE} was edited after the run had written it" if is_edited else ""


def _not_numbers(metrics: object) -> str:
    """Return as JSON what is not a mapping of names to numbers; empty where all is right."""
    if not isinstance(metrics, dict):
        return json.dumps(metrics)[:60]
    odd = {name: value for name, value in metrics.items() if not isinstance(value, int | float)}
    return next((f"{json.dumps(value)[:60]} for {name}" for name, value in odd.items()), "")


def _digest(result: dict[str, Any]) -> str:
    """Return a hash of what the values are in JSON, however that is laid out in the file."""
    values = json.loads(json.dumps(result, default=str))  # as it will be read again
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
