"""Learning curves and pictures from TensorBoard's event files, without torch."""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from jaxtyping import Float
from numpy.typing import ArrayLike
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util import tensor_util

POINTS = 120
"""Most points of a curve on the page; what is between them is averaged."""

OWN_SUFFIX = ".pretzel-hparams"
"""Of the files that the report itself writes beside those of the runs."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as it was logged.

    Attributes:
        step: Training step.
        encoded: The file's bytes, such as PNG.
    """

    step: int
    encoded: bytes


@dataclass(frozen=True, kw_only=True)
class Events:
    """What one run has logged.

    Attributes:
        scalars: Value by step, by tag.
        pictures: The last of each tag.
    """

    scalars: dict[str, dict[int, float]] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve over seeds: their mean, and the range from the lowest to the highest.

    Attributes:
        steps: Where.
        mean: Over the seeds that have reached the step.
        low: Lowest of them.
        high: Highest of them.
        seeds: Number of seeds with any value.
    """

    steps: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]
    seeds: int


def read(folder: Path) -> Events:
    """Read the event files in a run's folder, oldest first.

    What a continued run logs again replaces what was logged before. Files that end in the middle,
    as those of a killed run do, are read up to there.
    """
    events = Events()
    files = [f for f in folder.glob("events.out.tfevents.*") if not f.name.endswith(OWN_SUFFIX)]
    for file in sorted(files, key=lambda f: (f.stat().st_mtime, f.name)):
        for event in _records(file):
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                plugin = value.metadata.plugin_data.plugin_name
                if kind == "simple_value":
                    events.scalars.setdefault(value.tag, {})[event.step] = value.simple_value
                elif kind == "tensor" and plugin == "scalars":
                    number = float(tensor_util.make_ndarray(value.tensor).item())
                    events.scalars.setdefault(value.tag, {})[event.step] = number
                elif kind == "image":
                    picture = value.image.encoded_image_string
                    events.pictures[value.tag] = Picture(step=event.step, encoded=picture)
                elif kind == "tensor" and plugin == "images" and len(value.tensor.string_val) > 2:
                    picture = value.tensor.string_val[2]  # after width and height
                    events.pictures[value.tag] = Picture(step=event.step, encoded=picture)
    return events


def _records(file: Path) -> Iterator[Event]:
    """Yield the events of a file.

    TensorBoard's own reader checks a sum over every byte in pure Python, which takes ten times as
    long as all the rest where there are pictures; here only the lengths are checked.
    """
    try:
        data = file.read_bytes()
    except OSError:
        return
    at = 0
    while at + 12 <= len(data):
        length, check = struct.unpack_from("<QI", data, at)
        if masked_crc32c(data[at : at + 8]) != check or at + 16 + length > len(data):
            return
        try:
            yield Event.FromString(data[at + 12 : at + 12 + length])
        except DecodeError:
            return
        at += 16 + length


def band(curves: Sequence[dict[int, float]], points: int = POINTS) -> Band | None:
    """Put the curves of several seeds together.

    Args:
        curves: Value by step, one for each seed; values that are not finite are left out.
        points: Most points of the result; with more steps than that, those between two points are
            averaged. A seed counts between its own first and last step.

    Returns:
        The band, or None where no seed has two values.
    """
    finite: list[dict[float, float]] = [
        {float(step): v for step, v in sorted(curve.items()) if math.isfinite(v)}
        for curve in curves
    ]
    finite = [curve for curve in finite if len(curve) > 1]
    if not finite:
        return None
    steps = np.unique(np.concatenate([_array([*curve]) for curve in finite]))
    if len(steps) > points:
        edges = np.linspace(steps[0], steps[-1], points + 1)
        finite = [_averaged(curve, edges) for curve in finite]
        steps = np.unique(np.concatenate([_array([*curve]) for curve in finite]))
        steps = steps if len(steps) <= points else (edges[1:] + edges[:-1]) / 2
    rows = np.stack(
        [
            np.interp(steps, _array([*c]), _array([*c.values()]), left=np.nan, right=np.nan)
            for c in finite
        ]
    )
    known = ~np.isnan(rows).all(axis=0)
    steps, rows = steps[known], rows[:, known]
    return Band(
        steps=steps,
        mean=np.nanmean(rows, axis=0),
        low=np.nanmin(rows, axis=0),
        high=np.nanmax(rows, axis=0),
        seeds=len(finite),
    )


def _averaged(curve: dict[float, float], edges: Float[np.ndarray, " edges"]) -> dict[float, float]:
    """Return the means of a curve's steps and values between the edges."""
    steps, values = _array([*curve]), _array([*curve.values()])
    bins = np.clip(np.searchsorted(edges, steps, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(bins, minlength=len(edges) - 1)
    used = counts > 0
    centres = np.bincount(bins, steps, len(edges) - 1)[used] / counts[used]
    means = np.bincount(bins, values, len(edges) - 1)[used] / counts[used]
    return dict(zip(centres.tolist(), means.tolist(), strict=True))


def _array(values: ArrayLike) -> Float[np.ndarray, " n"]:
    return np.asarray(values, dtype=np.float64)
