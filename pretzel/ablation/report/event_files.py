"""Scalars and pictures read from TensorBoard's event files, without torch."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util import tensor_util

OWN_SUFFIX = ".pretzel-hparams"
"""End of the names of event files that the report itself writes beside those of the runs."""


class Picture(NamedTuple):
    """An image as it was logged."""

    step: int
    encoded: bytes  # of its file, such as PNG


@dataclass(frozen=True, kw_only=True)
class Events:
    """The scalars and pictures that one run has logged."""

    scalars: dict[str, dict[int, float]] = field(default_factory=dict)  # by tag, by step
    pictures: dict[str, Picture] = field(default_factory=dict)  # the last of each tag


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
                    encoded = value.image.encoded_image_string
                    events.pictures[value.tag] = Picture(event.step, encoded)
                elif kind == "tensor" and plugin == "images" and len(value.tensor.string_val) > 2:
                    encoded = value.tensor.string_val[2]  # after width and height
                    events.pictures[value.tag] = Picture(event.step, encoded)
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
