"""Folders of grids as the runner leaves them, with event files as Lightning's logger's."""

import io
import time

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from pretzel.files.atomic import write_json


def write_plan(folder, arms, *, metrics, seeds, axes=None, choices=None, absent=None, **more):
    """Write ``plan.json``; the first arm is the baseline, ``arms`` says what each changes."""
    absent = absent or {}
    cells = [
        {"name": f"{arm}/seed{seed}", "arm": arm, "seed": seed, "identity": "x"}
        for arm in arms
        for seed in seeds
        if "" not in absent.get(arm, {})
    ]
    write_json(
        folder / "plan.json",
        {
            "grid": "ablations/made.yaml",
            "baseline": next(iter(arms)),
            "axes": axes or {"axis": list(arms)},
            "metrics": metrics,
            "seeds": list(seeds),
            "arms": {
                arm: {
                    "choices": (choices or {}).get(arm, {"axis": arm}),
                    "changes": changes,
                    "absent": absent.get(arm, {}),
                }
                for arm, changes in arms.items()
            },
            "runs": more.pop("stages", []) + [cell | more for cell in cells],
        },
    )


def write_result(folder, arm, seed, metrics, **more):
    """Write the result of a finished cell."""
    write_json(
        folder / arm / f"seed{seed}" / "result.json",
        {
            "identity": "x",
            "metrics": metrics,
            "train_seconds": 60.0 + seed,
            "parameters": {"trainable": 1_700_000, "frozen": 0},
        }
        | more,
    )


def write_config(folder, arm, seed, **config):
    """Write what a cell was asked to run."""
    write_json(folder / arm / f"seed{seed}" / "run.json", {"identity": "x", "config": config})


def write_failure(folder, arm, seed, error):
    """Write the failure of a cell."""
    write_json(folder / arm / f"seed{seed}" / "run.json", {"identity": "x"})
    write_json(folder / arm / f"seed{seed}" / "failure.json", {"error": error})


def write_events(folder, scalars, pictures=(), suffix=""):
    """Write an event file: scalars by tag and step, and PNG pictures as (tag, step, colour)."""
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for tag, curve in scalars.items():
        for step, number in curve.items():
            summary = Summary()
            summary.value.add(tag=tag, simple_value=number)
            writer.add_event(Event(summary=summary, step=step, wall_time=time.time()))
    for tag, step, colour in pictures:
        summary, file = Summary(), io.BytesIO()
        Image.new("RGB", (96, 48), colour).save(file, "PNG")
        value = summary.value.add(tag=tag)
        value.image.width, value.image.height, value.image.colorspace = 96, 48, 3
        value.image.encoded_image_string = file.getvalue()
        writer.add_event(Event(summary=summary, step=step, wall_time=time.time()))
    writer.close()
