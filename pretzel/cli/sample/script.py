"""Scripts of conversations: steps read from a file, and checked before any model is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pretzel.errors import UserError, did_you_mean
from pretzel.generation.turn import Turn
from pretzel.runs.config.yaml_lines import parsed

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from pretzel.model import Pretzel

KINDS = ("say", "image", "generate", "answer", "continue")


def read_script(path: Path) -> list[Turn]:
    """Read a YAML list of steps; images are found relative to the file.

    Raises:
        UserError: If a step is not one, or an image cannot be read.
    """
    where = f"--turns: {path}"
    try:
        steps, _ = parsed(path.read_text(encoding="utf-8"), where)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: must be UTF-8 text ({error.reason})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}: is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(steps, list) or not steps:
        raise UserError(f"{where}: must be a list of steps such as '- say: a red circle'")
    return [_step(step, f"{where}: step {i + 1}", path.parent) for i, step in enumerate(steps)]


def _step(step: Any, where: str, folder: Path) -> Turn:  # noqa: ANN401
    if not isinstance(step, dict) or len(step) != 1:
        raise UserError(f"{where} must be one of {', '.join(KINDS)} with its value, got {step!r}")
    (kind, value), *_ = step.items()
    if kind not in KINDS:
        hint = did_you_mean(str(kind), KINDS)
        raise UserError(f"{where} must be one of {', '.join(KINDS)}, got {kind!r}{hint}")
    if kind in ("say", "image"):
        if not isinstance(value, str):
            raise UserError(f"{where}: {kind} must be given a text, got {value!r}")
        if kind == "say":
            return Turn(kind=kind, text=value)
        return Turn(kind=kind, picture=read_picture(folder / value, where))
    if value is not True:
        raise UserError(f"{where}: {kind} must be given true, got {value!r}")
    return Turn(kind=kind)


def question_scripts(image: Path, questions: Sequence[str]) -> list[list[Turn]]:
    """Return a script for every question about an image, or one that has it described."""
    first = Turn(kind="image", picture=read_picture(image, "--image"))
    answer = Turn(kind="answer")
    return [[first, Turn(kind="say", text=text), answer] for text in questions] or [[first, answer]]


def read_picture(path: Path, where: str) -> "Picture":
    """Read a picture.

    Raises:
        UserError: If it cannot be read; ``where`` names it.
    """
    from pretzel.files.image_file import open_image

    try:
        return open_image(path)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def check_script(model: "Pretzel", steps: Sequence[Turn], max_tokens: int) -> int:
    """Return the positions that a script with answers of ``max_tokens`` needs at most.

    Raises:
        UserError: If the model, which may be without memory, cannot do a step.
    """
    from pretzel.generation.writing import require_answers
    from pretzel.sequence.document import Document, Image, Text

    segments: list[Image | Text] = []
    length = 0
    images = 0
    for step in steps:
        if step.kind == "say":
            length += len(model.vlm.encode_text(step.text))
            segments.append(Text(content=step.text))
        elif step.kind in ("image", "generate"):
            images += 1
            length += model.latent.num_positions + 2
            segments.append(Image())
            whole = Document(key="", segments=tuple(segments))
            if model.interleaving.view(whole).num_images < images:
                raise UserError(
                    f"{type(model.interleaving).__name__} models one image in a sequence, got "
                    f"{images}"
                )
        else:
            require_answers(model)
            if not length:
                raise UserError(f"{step.kind} must follow a text or an image, got nothing before")
            length += max_tokens + 1
            if step.kind == "continue":
                length += model.latent.num_positions + 2
            segments.append(Text(content="", role="target"))
    return length
