"""Selection on test data, refused: what is chosen by validation must not be measured on its files.

A checkpoint kept as the best, a run stopped early and a tuned value are chosen by a metric of the
validation split. Where its files are those of test, the test would measure what was fitted to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from pretzel.errors import UserError
from pretzel.files.content_hash import file_hash
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.nested import listed
from pretzel.runs.config.overlay import Config
from pretzel.runs.config.yaml_lines import Key

_NOT_VALIDATION = ("train", "step", "epoch", "global_step")


@runtime_checkable
class SplitFiles(Protocol):
    """Data that says which files its splits are read from; to implement it needs no import."""

    def split_files(self) -> Mapping[str, Sequence[str]]:
        """Return the files, or addresses, of each split; those of ``val`` and ``test`` count."""


def why_test_data(data: object) -> str | None:
    """Return why to select by validation is to select on test data; None if it is not."""
    if not isinstance(data, SplitFiles):
        return None
    files = data.split_files()
    test = {_content(file) for file in files.get("test", ())}
    for file in files.get("val", ()):
        if _content(file) in test:
            return f"data reads {Path(file).name} for val and for test; give val files of its own"
    return None


def check_selection(values: Mapping[str, Any], data: object, config: Config) -> None:
    """Refuse callbacks of a resolved configuration that would select on test data.

    Raises:
        UserError: Naming the callback's key and the file.
    """
    for key, kind, monitor in _selecting(values):
        if reason := why_test_data(data):
            source = config.source(key)
            raise UserError(
                f"{f'{source}: ' if source else ''}{'.'.join(key)}: {kind} by {monitor} "
                f"would select on test data: {reason}"
            )


def _selecting(values: Mapping[str, Any]) -> Iterator[tuple[Key, str, str]]:
    """Yield the key, the class and the metric of what is selected by validation."""
    callbacks = (values.get("trainer") or {}).get("callbacks")
    for number, callback in enumerate(listed(callbacks)):
        kind, arguments = import_name(callback["class_path"]), callback.get("init_args") or {}
        monitor = arguments.get("monitor")
        if not isinstance(kind, type) or not issubclass(kind, EarlyStopping | ModelCheckpoint):
            continue
        if monitor and not monitor.startswith(_NOT_VALIDATION) and arguments.get("save_top_k") != 0:
            yield (
                ("trainer", "callbacks", str(number), "init_args", "monitor"),
                kind.__name__,
                monitor,
            )


def _content(file: str) -> str:
    """Return the content hash of a file; of an address, its text."""
    return file_hash(Path(file)) if Path(file).exists() else file
