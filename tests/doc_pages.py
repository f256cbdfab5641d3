"""The pages of the documentation, as blocks of commands, Python and YAML."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = ("_build", "results", "api", "notebooks")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


@cache
def pages():
    """Return the text of each page by its path."""
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    files += [
        path
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if not set(path.relative_to(ROOT).parts[:-1]) & set(GENERATED)
    ]
    return {str(path.relative_to(ROOT)): path.read_text() for path in files}


@cache
def blocks(*languages):
    """Return the blocks of some languages, or all blocks."""
    found = [
        Block(page, text[: match.start()].count("\n") + 1, match["language"].strip(), match["text"])
        for page, text in pages().items()
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def words_of(text):
    """Return the commands of a block of shell, without comments, as lists of words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@cache
def commands(*languages):
    """Return each different command of the pages once, with the block where it first stands."""
    found = {}
    for block in blocks(*(languages or ("sh",))):
        for words in words_of(block.text):
            found.setdefault(tuple(words), block)
    return found


def section(page, heading):
    """Return the text from a heading to the next one of the same depth."""
    depth = heading.split(" ")[0]
    return pages()[page].partition(f"\n{heading}\n")[2].partition(f"\n{depth} ")[0]
