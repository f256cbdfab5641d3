"""The file with what every item of a test gave: ``samples.jsonl.gz`` beside the results of a run.

A line is a JSON object, a :class:`~pretzel.ablation.protocols.SampleResult`: any language reads it,
``pandas.read_json(path, lines=True)`` among them. The result of a run names the file's hash, and a
file that is not as the run has written it is not read.
"""

import gzip
import hashlib
import json
import math
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pretzel.ablation.protocols import KeepsSamples, SampleResult
from pretzel.errors import UserError
from pretzel.files.atomic import whole_file

SAMPLE_FILE = "samples.jsonl.gz"
MOST_ITEMS = 500_000
MOST_BYTES = 2**28
"""Most bytes of a file, also when it is uncompressed."""
SHOWN_BYTES = 2**26
"""Texts and pictures of items behind so many bytes are left out."""
MOST_LETTERS = 500
"""Letters of a text or name; the rest is cut."""
_LINE_BYTES = 2**17
_SAMPLE = TypeAdapter(SampleResult)


def sample_results(trainer: Any) -> list[SampleResult]:  # noqa: ANN401
    """Return what the module and the callbacks of a trainer keep of the last test.

    The results of a part that are none, or too many, are left out with a warning: a run is not lost
    for them.
    """
    results: list[SampleResult] = []
    for part in (trainer.lightning_module, *trainer.callbacks):
        if not isinstance(part, KeepsSamples) or not part.sample_results:
            continue
        try:
            results += _checked(part.sample_results)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"{type(part).__name__}: the results of single items are not kept: {reason}",
                stacklevel=2,
            )
    return results


def _checked(samples: Sequence[SampleResult]) -> list[SampleResult]:
    """Return results as they are written.

    Raises:
        ValueError: If they are no results, too many, or two of one item.
    """
    if len(samples) > MOST_ITEMS:
        raise ValueError(f"{len(samples)} items, and {MOST_ITEMS} at most are kept")
    checked: list[SampleResult] = []
    seen: set[tuple[str, str]] = set()
    for sample in samples:
        one = _SAMPLE.validate_python(sample)
        one["item"] = one["item"][:MOST_LETTERS]
        for metric, value in one["values"].items():
            if (metric, one["item"]) in seen:
                raise ValueError(f"{metric} has two results of the item {one['item']!r}")
            seen.add((metric, one["item"]))
            if value is not None and not math.isfinite(value):
                one["values"][metric] = None
        if "texts" in one:
            one["texts"] = {name: text[:MOST_LETTERS] for name, text in one["texts"].items()}
        checked.append(one)
    return checked


def write_samples(folder: Path, samples: Sequence[SampleResult]) -> dict[str, Any] | None:
    """Write the file, and return what the result of the run says of it.

    Without samples there is no file, that of an earlier test neither.

    Raises:
        OSError: If it cannot be written.
    """
    path = folder / SAMPLE_FILE
    if not samples:
        path.unlink(missing_ok=True)
        return None
    size = 0
    with whole_file(path) as partial:
        # without name and time: equal results make equal files
        with partial.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            for sample in samples:
                line = _line(sample)
                if size > SHOWN_BYTES or len(line) > _LINE_BYTES:
                    texts = ("texts", "picture")
                    line = _line({k: v for k, v in sample.items() if k not in texts})
                size += file.write(line)
        digest = _hash(partial)
    return {"sha256": digest, "items": len(samples)}


def _line(sample: Mapping[str, Any]) -> bytes:
    text = json.dumps(sample, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="replace") + b"\n"  # halves of surrogates are no JSON


def read_samples(folder: Path, record: Mapping[str, Any]) -> Iterator[SampleResult]:
    """Yield the results of the items of a run, in order; the run may be a stranger's.

    Args:
        folder: The run's.
        record: What its result says of the file.

    Raises:
        UserError: If the file is missing, was edited, or is larger than any that a run writes.
    """
    path = folder / SAMPLE_FILE
    check_samples(folder, record)
    try:
        with gzip.open(path) as file:
            size = 0
            while line := file.readline(_LINE_BYTES):
                size += len(line)
                if size > MOST_BYTES:
                    raise UserError(f"{SAMPLE_FILE} holds more than {MOST_BYTES} bytes")
                yield _SAMPLE.validate_json(line)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{SAMPLE_FILE} cannot be read ({error})") from error
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise UserError(
            f"{SAMPLE_FILE} has a line that is no result of an item: {reason}"
        ) from None


def check_samples(folder: Path, record: Mapping[str, Any]) -> None:
    """Check that the file is the one that a result speaks of, without reading what is in it.

    Raises:
        UserError: If it is not.
    """
    path = folder / SAMPLE_FILE
    if not path.is_file() or path.is_symlink():
        raise UserError(f"{SAMPLE_FILE} is missing")
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{SAMPLE_FILE} is larger than {MOST_BYTES} bytes")
    if _hash(path) != record["sha256"]:
        raise UserError(f"{SAMPLE_FILE} is not as the run has written it")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
