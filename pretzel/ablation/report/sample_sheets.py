"""The last sample sheet of every run, for the page: the arms of one seed side by side."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from pretzel.ablation.report.comparison import Comparison, RunResult
from pretzel.ablation.report.event_files import Events, Picture
from pretzel.ablation.report.table import NOT_APPLICABLE

AS_LOGGED_BYTES, MOST_BYTES = 6_000_000, 20_000_000
"""Pictures stay as they were logged up to the first size; beyond the second, seeds are left out."""

_TAGS = ("test/samples", "val/samples")


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The samples of one run.

    Attributes:
        arm: The run's arm.
        address: The picture as a data address; empty without one.
        step: Training step of the picture.
        absence: Why there is no picture.
    """

    arm: str
    address: str = ""
    step: int = 0
    absence: str = ""


@dataclass(frozen=True, kw_only=True)
class SampleSheets:
    """The sheets of a grid.

    Samples are generated from noise that depends on the seed alone, so that within a seed the same
    place of every arm's sheet has the same noise.

    Attributes:
        tag: The pictures' name in TensorBoard.
        by_seed: The sheet of each arm, by seed.
        compressed: Whether pictures are compressed with losses.
        left_out: Seeds that would make the page too large.
    """

    tag: str
    by_seed: dict[int, list[Sheet]]
    compressed: bool
    left_out: list[int]


def sample_sheets(comparison: Comparison, events: Mapping[str, Events]) -> SampleSheets | None:
    """Return the last sheets of all runs; None where no picture was logged.

    Args:
        comparison: The grid.
        events: What each run has logged, by its name.
    """
    tags = {tag for logged in events.values() for tag in logged.pictures}
    if not tags:
        return None
    tag = next((tag for tag in _TAGS if tag in tags), min(tags))
    pictures = {n: logged.pictures[tag] for n, logged in events.items() if tag in logged.pictures}
    compressed = sum(len(picture.encoded) for picture in pictures.values()) > AS_LOGGED_BYTES
    by_seed: dict[int, list[Sheet]] = {}
    left_out, size = [], 0
    for seed in comparison.seeds:
        runs = {run.arm: run for run in comparison.runs if run.seed == seed}
        sheets = [_sheet(arm, runs.get(arm), pictures, compressed) for arm in comparison.arms]
        size_of_seed = sum(len(sheet.address) for sheet in sheets)
        size += size_of_seed
        if by_seed and size > MOST_BYTES and size_of_seed:
            left_out.append(seed)
        elif size_of_seed:
            by_seed[seed] = sheets
    return SampleSheets(tag=tag, by_seed=by_seed, compressed=compressed, left_out=left_out)


def _sheet(
    arm: str, run: RunResult | None, pictures: Mapping[str, Picture], compressed: bool
) -> Sheet:
    if run is None:
        return Sheet(arm=arm, absence=NOT_APPLICABLE)
    if (picture := pictures.get(run.name)) is not None:
        return Sheet(arm=arm, address=_address(picture.encoded, compressed), step=picture.step)
    reason = f": {run.trouble}" if run.trouble else ""
    return Sheet(arm=arm, absence=f"no picture ({run.state.value}){reason}")


def _address(data: bytes, compressed: bool) -> str:
    """Return a picture as a data address, as it was logged or compressed."""
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "gif" if data.startswith(b"GIF") else "png"
    if compressed:
        try:
            with Image.open(io.BytesIO(data)) as image:
                smaller = io.BytesIO()
                image.convert("RGB").save(smaller, "WEBP", quality=90)
            data, kind = smaller.getvalue(), "webp"
        except (UnidentifiedImageError, OSError):
            pass  # shown as it is
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
