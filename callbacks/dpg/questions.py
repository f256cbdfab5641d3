"""DPG-Bench's table of prompts and questions."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pretzel.errors import UserError

CATEGORIES = ("global", "entity", "attribute", "relation", "other")
_COLUMNS = (
    "item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class YesNoQuestion:
    """A question about the image of a prompt.

    Attributes:
        number: Its number among those of the prompt.
        parents: Numbers of the questions that must be answered yes for it to count.
        category: One of :data:`CATEGORIES`.
        text: The question.
    """

    number: int
    parents: tuple[int, ...]
    category: str
    text: str


def read_questions(table: str, prompts: str | None) -> dict[str, list[YesNoQuestion]]:
    """Return the questions of each prompt, in order.

    Args:
        table: The published ``dpg_bench.csv``, or one like it.
        prompts: Folder with the prompt of each item in ``<item_id>.txt``; None takes the column
            ``text``.

    Raises:
        UserError: If a file cannot be read, or a line has no question of an item.
    """
    place = f"DPGBench: questions {table!r}"
    items: dict[str, list[YesNoQuestion]] = {}
    texts: dict[str, str] = {}
    try:
        with Path(table).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [c for c in _COLUMNS if c not in (reader.fieldnames or ())]:
                raise UserError(f"{place} must have the column {missing[0]}")
            for row in reader:
                line = f"{place}, line {reader.line_num}"
                items.setdefault(row["item_id"], []).append(_question(row, line))
                texts.setdefault(row["item_id"], row["text"])
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{place} must be a CSV table in UTF-8 ({error})") from error
    if not items:
        raise UserError(f"{place} must have a question a line, got none")
    asked: dict[str, list[YesNoQuestion]] = {}
    for item, questions in items.items():
        if unknown := {n for q in questions for n in q.parents} - {q.number for q in questions}:
            raise UserError(
                f"{place}: dependency of {item} must name its propositions, got {min(unknown)}"
            )
        prompt = texts[item].strip() if prompts is None else _prompt(Path(prompts), item)
        if not prompt or prompt in asked:
            rule = "must not be empty" if not prompt else "must be that of no other item"
            raise UserError(f"{place}: the prompt of {item} {rule}")
        asked[prompt] = questions
    return asked


def _question(row: Mapping[str, str | None], place: str) -> YesNoQuestion:
    try:
        cells = {name: (row[name] or "").strip() for name in _COLUMNS}
        parents = [int(number) for number in cells["dependency"].split(",") if number.strip()]
        question = YesNoQuestion(
            number=int(cells["proposition_id"]),
            parents=tuple(number for number in parents if number),  # 0 is none
            category=cells["tuple"].split("(")[0].split("-")[0].strip().lower(),
            text=cells["question_natural_language"],
        )
    except ValueError as error:
        raise UserError(
            f"{place}: proposition_id and dependency must be whole numbers ({error})"
        ) from error
    if question.category not in CATEGORIES or not question.text:
        raise UserError(
            f"{place}: must have a question, and a tuple of {', '.join(CATEGORIES)}, got "
            f"{cells['tuple']!r}"
        )
    return question


def _prompt(folder: Path, item: str) -> str:
    file = folder / f"{Path(item).name}.txt"
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"DPGBench: prompts {str(file)!r} must be that of {item}, in UTF-8 ({error})"
        ) from error
