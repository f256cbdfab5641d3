"""The format of golden vectors, and all that a folder of them asks to be run.

A file holds the constructor arguments and the calls of the published code with their results, in
float32 (``out.``) and in float64 (``out64.``). Anything unknown is refused: nothing may be skipped
in silence.
"""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open

FOLDER = Path(os.environ.get("PRETZEL_GOLDEN") or Path(__file__).parents[1] / "golden").absolute()
PREFIX = {torch.float32: "out.", torch.float64: "out64."}
CALL = {"id", "method", "inputs", "kwargs", "outputs"}
# Beside the vectors; everything else in a folder is run, at any depth, and fails if it cannot be.
TEXTS = {"", ".md", ".txt"}  # README, LICENSE, SHA256SUMS have no suffix


def files(folder=FOLDER):
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(path for path in found if path.suffix not in TEXTS and path.name[0] != ".")


def calls(path):
    """Return the calls of a file; None if it cannot be read, which fails later, as a test."""
    try:
        with safe_open(path, "pt") as file:
            return [call["id"] for call in json.loads(file.metadata()["golden"])["calls"]] or None
    except Exception:
        return None


def runs(folder=FOLDER):
    """Return all calls of all files, each with its file; None for a file that tells no calls."""
    return [(path, call) for path in files(folder) for call in calls(path) or [None]]


@dataclass
class GoldenFile:
    """One file in one precision."""

    path: Path
    dtype: torch.dtype
    tensors: dict = field(init=False)
    about: dict = field(init=False)

    def __post_init__(self):
        with safe_open(self.path, "pt") as file:
            self.about = json.loads(file.metadata()["golden"])
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.check_calls()

    def check_calls(self):
        """Refuse calls of which something would not be run or compared."""
        for call in self.about["calls"]:
            keys = set(call) - {"note"}
            if keys != CALL:
                raise ValueError(f"a call must have {sorted(CALL)}, got {sorted(keys)}")
            if not call["outputs"]:
                raise ValueError(f"{call['id']} has no outputs to compare with")
        ids = [call["id"] for call in self.about["calls"]]
        if twice := [name for name, count in Counter(ids).items() if count > 1]:
            raise ValueError(f"ids of calls must differ, got {twice[0]!r} twice")
        outputs = [key for call in self.about["calls"] for key in call["outputs"]]
        if wrong := [key for key in outputs if not key.startswith("out.")]:
            raise ValueError(f"outputs must begin with out., got {wrong[0]!r}")
        results = {key.replace("out.", prefix, 1) for key in outputs for prefix in PREFIX.values()}
        if missing := sorted(results - set(self.tensors)):
            raise ValueError(f"{missing[0]!r} is an output of a call, but there is no such tensor")
        rest = set(self.tensors) - results
        if unknown := sorted(key for key in rest if not key.startswith(("param.", "in."))):
            raise ValueError(f"{unknown[0]!r} is the output of no call")

    def cast(self, value):
        return value.to(self.dtype) if value.is_floating_point() else value

    def input(self, key):
        if key.startswith("out."):
            key = PREFIX[self.dtype] + key.removeprefix("out.")
        return self.cast(self.tensors[key])

    def expected(self, key):
        return self.tensors[PREFIX[self.dtype] + key.removeprefix("out.")]

    def call(self, name):
        return next(call for call in self.about["calls"] if call["id"] == name)

    def parameters(self):
        found = {
            key.removeprefix("param."): self.cast(value)
            for key, value in self.tensors.items()
            if key.startswith("param.")
        }
        if "var" in found:
            found["var"] = torch.ones_like(found["var"])  # as constructed; see `var`
        return found

    def var(self, before):
        """Return the prior's variance at a call: the file holds that after all updates."""
        updates = [call for call in self.about["calls"] if call["method"] == "update_prior"]
        if not updates:
            return self.cast(self.tensors["param.var"])
        key = next(k for k in updates[0]["outputs"] if k.endswith(".var_before"))
        var = self.cast(self.expected(key))
        for call in self.about["calls"]:
            if call["id"] == before:
                break
            if call["method"] == "update_prior":
                var = self.updated(var, call)
        return var

    def updated(self, var, call):
        return 0.9 * var + 0.1 * self.input(call["inputs"]["z"]).square().mean(dim=0)
