"""The last sample sheet of every run, for the page: the arms of one seed side by side."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from pretzel.ablation.report.comparison import Comparison
from pretzel.ablation.report.event_files import Events

AS_LOGGED_BYTES, MOST_BYTES = 6_000_000, 20_000_000
"""Pictures stay as they were logged up to the first size; beyond the second, seeds are left out."""

_TAGS = ("test/samples", "val/samples")


@dataclass(frozen=True, kw_only=True)
class SampleSheets:
    """The sheets of a grid.

    Samples are generated from noise that depends on the seed alone, so that within a seed the same
    place of every arm's sheet has the same noise.
    """

    tag: str  # the pictures' name in TensorBoard
    by_seed: dict[int, dict[str, tuple[str, int]]]  # data address and training step, by arm
    compressed: bool  # with losses
    left_out: list[int]  # seeds that would make the page too large


def sample_sheets(comparison: Comparison, events: Mapping[str, Events]) -> SampleSheets | None:
    """Return the last sheets of all runs, of what each has logged; None without any picture."""
    tags = {tag for logged in events.values() for tag in logged.pictures}
    if not tags:
        return None
    tag = next((tag for tag in _TAGS if tag in tags), min(tags))
    pictures = {n: logged.pictures[tag] for n, logged in events.items() if tag in logged.pictures}
    compressed = sum(len(picture.encoded) for picture in pictures.values()) > AS_LOGGED_BYTES
    by_seed: dict[int, dict[str, tuple[str, int]]] = {}
    left_out, size = [], 0
    for seed in comparison.seeds:
        of_seed = {
            run.arm: (_address(pictures[run.name].encoded, compressed), pictures[run.name].step)
            for run in comparison.runs
            if run.seed == seed and run.name in pictures
        }
        size += sum(len(address) for address, _ in of_seed.values())
        if by_seed and of_seed and size > MOST_BYTES:
            left_out.append(seed)
        elif of_seed:
            by_seed[seed] = of_seed
    return SampleSheets(tag=tag, by_seed=by_seed, compressed=compressed, left_out=left_out)


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
