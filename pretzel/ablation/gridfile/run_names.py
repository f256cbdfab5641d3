"""Names of runs as folders: none may be a file of the grid itself, or longer than a path may be."""

import os
from collections.abc import Iterator

from pretzel.ablation.gridfile.grid import Combination, Grid
from pretzel.ablation.gridfile.schema import MAX_NAME_BYTES
from pretzel.runs.config.yaml_lines import Key

GRID_FILES = frozenset(
    {"plan.json", "plan_now.json", "stages", "tuning", "source", "slurm"}
    | {f"compare.{ending}" for ending in ("md", "tex", "csv", "html")}
    | {"compare_summary.csv", "compare_items.csv"}
)
"""Names in the output folder of a grid beside the arms' and TensorBoard's event files."""
EVENT_FILES = "events.out.tfevents."
_TUNING_BYTES = len("-.-12345678") + 60  # behind the arm: the values that are tried, and a hash
_LINK_BYTES = len("-seed-12345678")
_MAX_PATH_BYTES = 4096 - 200  # files of a run: checkpoints, events of TensorBoard


def name_mistakes(grid: Grid) -> Iterator[tuple[Key, str]]:
    """Yield the key and the text of each mistake in the names of a grid's runs; of a kind one."""
    for axis in grid.axes:
        for arm in axis.arms:
            # some file systems do not tell upper from lower case
            name = arm.name.casefold()
            if len(grid.axes) == 1 and (name in GRID_FILES or name.startswith(EVENT_FILES)):
                why = "is a file or folder of the grid itself in its output; call the arm otherwise"
                yield ("axes", axis.name, arm.name), why
    for link in grid.chain:
        if len(link) + _LINK_BYTES + len(str(max(grid.seeds))) > MAX_NAME_BYTES:
            yield ("chain", link), "must be shorter: its runs are folders named LINK-seedN-HASH"
    for folder in (grid.output, *grid.output.parents):
        if folder.is_symlink() and not folder.exists():
            yield ("output",), f"must be a folder, and {folder} is a link to nothing"
    longest = max(grid.combinations, key=_folder_bytes, default=None)
    if longest is None:
        return
    size, name = _folder_bytes(longest), "+".join(map(shortened, longest.choices.values()))
    if size > MAX_NAME_BYTES:
        why = f"needs a folder name of {size} bytes, and {MAX_NAME_BYTES} is the most"
        yield ("axes",), f"{name} {why}; give its arms shorter names"
    elif len(os.path.abspath(grid.output)) + size > _MAX_PATH_BYTES:
        path = shortened(str(grid.output))
        yield (
            ("output",),
            f"must be a path of at most {_MAX_PATH_BYTES} bytes with {name}, got {path}",
        )


def shortened(text: str, most: int = 80) -> str:
    """Return a text that may be long, or hold a newline, for a message."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _folder_bytes(combination: Combination) -> int:
    is_tuned = any(arm.tune for _, arm in combination.arms)
    return len(combination.name) + (_TUNING_BYTES if is_tuned else 0)
