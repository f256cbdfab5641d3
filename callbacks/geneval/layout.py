"""The layout of folders of images that GenEval's evaluation reads."""

import re
from pathlib import Path

METADATA = "metadata.jsonl"
SAMPLES = "samples"
LAYOUT = f"00000/{METADATA} and 00000/{SAMPLES}/0000.png"


def prompt_folders(folder: Path) -> list[Path]:
    """Return the folders of prompts, whose names are numbers, in order; none of another layout."""
    numbered = [path for path in folder.iterdir() if path.name.isdecimal()]
    with_prompts = [path for path in numbered if (path / METADATA).is_file()]
    return sorted(with_prompts, key=lambda path: int(path.name))


def images_in(folder: Path) -> list[Path]:
    """Return the images of a prompt, in order of their numbers."""
    samples = folder / SAMPLES
    images = samples.iterdir() if samples.is_dir() else ()
    numbered = [path for path in images if re.match(r"\d+\.png", path.name)]
    return sorted(numbered, key=lambda path: (int(path.name.split(".")[0]), path.name))
