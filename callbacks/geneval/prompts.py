"""GenEval's file of prompts and of what their images must show."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from callbacks.geneval.layout import LAYOUT, METADATA, prompt_folders
from pretzel.errors import UserError

Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
TASKS: tuple[Task, ...] = get_args(Task)
Colour = Literal[
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"
]
COLOURS: tuple[Colour, ...] = get_args(Colour)
Relation = Literal["left of", "right of", "above", "below"]


class Objects(BaseModel):
    """So many objects of a class."""

    model_config = ConfigDict(frozen=True, strict=True)
    name: str = Field(alias="class")
    count: PositiveInt


class IncludedObjects(Objects):
    """Objects that must be there, of a colour, and in a place relative to earlier ones."""

    color: Colour | None = None
    position: tuple[Relation, Annotated[int, Field(ge=0)]] | None = None


class GenEvalPrompt(BaseModel):
    """A line of the file."""

    model_config = ConfigDict(frozen=True, strict=True)
    tag: Task
    include: tuple[IncludedObjects, ...] = Field(min_length=1)
    exclude: tuple[Objects, ...] = ()
    prompt: str = Field(min_length=1)

    @property
    def classes(self) -> set[str]:
        """Classes that a detector must know."""
        return {objects.name for objects in (*self.include, *self.exclude)}


def read_prompts(path: str) -> list[GenEvalPrompt]:
    """Return the lines of an ``evaluation_metadata.jsonl``, or those of a folder of images.

    A folder has the published layout: in each folder of a number a ``metadata.jsonl``, in order.

    Raises:
        UserError: If a file cannot be read, or a line is no such object.
    """
    if not Path(path).is_dir():
        return _prompts_of(path)
    files = [str(folder / METADATA) for folder in prompt_folders(Path(path))]
    if not files:
        raise UserError(
            f"GenEval: metadata {path!r} must be a file of GenEval's, or a folder of {LAYOUT}"
        )
    return [prompt for file in files for prompt in _prompts_of(file)]


def _prompts_of(file: str) -> list[GenEvalPrompt]:
    place = f"GenEval: metadata {file!r}"
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{place} must be UTF-8 text ({error.reason})") from error
    prompts = [_read(line, f"{place}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise UserError(f"{place} must have a prompt a line, got none")
    return prompts


def _read(line: str, place: str) -> GenEvalPrompt:
    try:
        prompt = GenEvalPrompt.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        reason = f"{key}: {first['msg']}" if key else first["msg"]
        raise UserError(f"{place}: must be a GenEval prompt as JSON ({reason})") from error
    for number, objects in enumerate(prompt.include):
        if objects.position is not None and objects.position[1] >= number:
            raise UserError(
                f"{place}: position of include {number} must name an earlier one, "
                f"got {objects.position[1]}"
            )
    return prompt
