"""Fingerprint of a run: one hash for training, one for evaluation.

*Training* is what can change the weights: the resolved configuration less paths, loggers and what
only measures; the source code behind it (:mod:`pretzel.ablation.identity.source_code`), the data,
the versions of the libraries. *Evaluation* is what measures them: metrics, samplers, guidance and
their code, the test data. A new metric is measured on finished checkpoints; a comment changes
nothing.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.callbacks import (
    Checkpoint,
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
)

from pretzel.ablation.identity.source_code import SourceCode, code_behind
from pretzel.files.content_hash import file_hash
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.nested import leaves, listed

# where things are written and how they are shown changes no result
_TRAINER_IGNORED = {
    "logger", "default_root_dir", "enable_progress_bar", "enable_model_summary",
    "enable_checkpointing", "log_every_n_steps", "profiler",
}  # fmt: skip
_TRAINER_MEASURES = frozenset({"limit_test_batches", "limit_predict_batches"})
_IGNORED = frozenset({"ckpt_path", "weights_only", "config"})
_PATHS_IGNORED = frozenset({"dirpath", "save_dir"})
_ONLY_SHOW = (Checkpoint, DeviceStatsMonitor, LearningRateMonitor, ModelSummary, ProgressBar)
Role = Literal["trains", "measures", "shows"]
TEST_DATA = "test/"
"""Prefix of the test data's names in a manifest."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Everything that can change a result.

    The configuration is resolved, without what changes nothing; the code is that of the parts that
    train, and of those that measure; data are content hashes by ``split/name``.
    """

    config: dict[str, Any]
    code: SourceCode
    measuring_code: SourceCode
    data: dict[str, str]

    @property
    def training(self) -> str:
        """Hash of everything that can change the weights."""
        trains, _ = _split(self.config)
        data = {name: file for name, file in self.data.items() if not name.startswith(TEST_DATA)}
        # results may differ between minor versions of Python, not between patches
        python = ".".join(platform.python_version_tuple()[:2])
        return hashed([trains, self.code.modules, self.code.versions, data, python])

    @property
    def evaluation(self) -> str:
        """Hash of how they are measured; with :attr:`training` it identifies a result."""
        _, measures = _split(self.config)
        code = self.measuring_code
        data = {name: file for name, file in self.data.items() if name.startswith(TEST_DATA)}
        return hashed([measures, code.modules, code.versions, data])

    def record(self) -> dict[str, Any]:
        """Return it as plain values, for the run's folder and the command ``why``."""
        return {
            "config": self.config,
            "modules": self.code.modules,
            "measuring_modules": self.measuring_code.modules,
            "versions": self.code.versions | self.measuring_code.versions,
            "data": self.data,
        }


def fingerprint_of(
    resolved: Mapping[str, Any], named: Mapping[str, str], data: Mapping[str, str]
) -> Fingerprint:
    """Return the fingerprint of a resolved configuration, with all defaults, and of its data.

    Names are replaced in its texts, such as the path of a stage's weights by the stage's identity.
    """
    kept = {key: value for key, value in resolved.items() if key not in _IGNORED}
    trainer = kept.get("trainer") or {}
    kept["trainer"] = {k: v for k, v in trainer.items() if k not in _TRAINER_IGNORED}
    config: dict[str, Any] = _clean(kept, named)
    trains, measures = _split(config)
    return Fingerprint(
        config=config,
        code=code_behind(_texts(trains)),
        measuring_code=code_behind(_texts(measures)),
        data=dict(data),
    )


def _texts(config: dict[str, Any]) -> list[str]:
    return [value for _, value in leaves(config) if isinstance(value, str) and "." in value]


def hashed(values: object) -> str:
    """Return a hash of plain values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _clean(node: Any, named: Mapping[str, str]) -> Any:  # noqa: ANN401
    """Leave out where things are written; put the hash of a file's content in place of its path."""
    if isinstance(node, dict):
        return {k: _clean(v, named) for k, v in node.items() if k not in _PATHS_IGNORED}
    if isinstance(node, list):
        return [_clean(value, named) for value in node]
    if not isinstance(node, str):
        return node
    if node not in named and _is_content(node):
        return f"{Path(node).name} {file_hash(Path(node))}"
    for text, replacement in named.items():
        node = node.replace(text, replacement)
    return node


def _is_content(text: str) -> bool:
    """Tell whether text names a file, or the folder of a model (which holds a config.json)."""
    # most texts are no paths (prompts, names of classes): the disk is not asked for each
    if not text or len(text) > 1000 or "\n" in text or not ("/" in text or Path(text).suffix):
        return False
    path = Path(text)
    return path.is_file() or (path / "config.json").is_file()


def measured_as(trained: Any, measured: Any) -> Any:  # noqa: ANN401
    """Return a resolved configuration that trains as one does and measures as another.

    What the first one does not say is left to defaults.
    """
    if not (isinstance(trained, dict) and isinstance(measured, dict)):
        return trained
    if trained.get("class_path") != measured.get("class_path"):
        return trained
    merged: dict[str, Any] = {}
    for key, value in trained.items():
        other = measured.get(key)
        measures = all(one is None or _role(one) == "measures" for one in (value, other))
        if key == "callbacks" and (value or other):
            merged[key] = [one for one in listed(value) if _role(one) != "measures"]
            merged[key] += [one for one in listed(other) if _role(one) == "measures"]
        elif measures or key in _TRAINER_MEASURES:
            merged[key] = other
        else:
            merged[key] = measured_as(value, other)
    return merged


def _split(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parts that train, and those that measure by dotted key."""
    measures: dict[str, Any] = {}
    trains: dict[str, Any] = _without_measuring(config, "", measures)
    trainer = trains.get("trainer", {})
    if not trainer.get("callbacks"):  # none at all, or none that trains
        trainer.pop("callbacks", None)
    for name in _TRAINER_MEASURES & trainer.keys():
        measures[f"trainer.{name}"] = trainer.pop(name)
    return trains, measures


def _without_measuring(node: Any, at: str, measures: dict[str, Any]) -> Any:  # noqa: ANN401
    if isinstance(node, list):
        kept = [(value, _role(value)) for value in node]
        for value, role in kept:
            if role == "measures":
                measures[f"{at}.{len(measures)}"] = value
        return [_without_measuring(value, at, measures) for value, role in kept if role == "trains"]
    if not isinstance(node, dict):
        return node
    trains = {}
    for key, value in node.items():
        role, inner = _role(value), f"{at}.{key}" if at else key
        if role == "measures":
            measures[inner] = value
        elif role == "trains":
            trains[key] = _without_measuring(value, inner, measures)
    return trains


def _role(node: object) -> Role:
    path = node.get("class_path") if isinstance(node, dict) else None
    return _role_of(path) if isinstance(path, str) else "trains"


@cache
def _role_of(class_path: str) -> Role:
    part = import_name(class_path)
    if not isinstance(part, type):
        return "trains"
    if issubclass(part, _ONLY_SHOW):
        return "shows"
    return "measures" if getattr(part, "evaluation_only", False) else "trains"
