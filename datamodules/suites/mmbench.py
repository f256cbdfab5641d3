"""MMBench: multiple choice, asked once for every rotation of the choices (Liu et al. 2023)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import final

from pydantic import BaseModel, Field
from typing_extensions import override

from datamodules.suites.encoded_picture import EncodedPicture
from datamodules.suites.suite import Question, Suite
from datamodules.suites.suite_file import SuiteFile

_LETTERS = "ABCDE"
_ROTATION = 1_000_000
"""The index of a rotation is that of its question and a multiple of this."""
_LONGEST_REFERENCE = 64
"""Characters up to which an image is the index of a row that has it."""
_REQUEST = "Please select the correct answer from the options above."


class _Row(BaseModel):
    index: int = Field(ge=0)
    question: str = Field(min_length=1)
    hint: str = ""
    answer: str
    category: str
    l2_category: str = Field(default="", alias="l2-category")
    image: str = Field(min_length=1)
    A: str = Field(min_length=1)
    B: str = Field(min_length=1)
    C: str = ""
    D: str = ""
    E: str = ""

    @property
    def choices(self) -> list[str]:
        """The choices up to the first that is empty."""
        texts = [self.A, self.B, self.C, self.D, self.E]
        return texts[: [*texts, ""].index("")]

    def asked(self, by: int) -> Question:
        """Return the question with its choices moved so many places to the front."""
        choices, right = self.choices, _LETTERS.index(self.answer)
        rotated = choices[by:] + choices[:by]
        options = [f"{letter}. {text}" for letter, text in zip(_LETTERS, rotated, strict=False)]
        hint = [f"Hint: {self.hint}"] if self.hint.strip() else []
        lines = [*hint, f"Question: {self.question}", "Options:", *options, _REQUEST]
        return {
            "question": "\n".join(lines),
            "answer": _LETTERS[(right - by) % len(choices)],
            "choices": rotated,
            "question_type": self.category,
            "answer_type": self.l2_category,
        }


@final
class MMBench(Suite):
    """MMBench's questions, from its table with images in base64.

    A sample is a question in all rotations of its choices: those that the table has (the index of a
    rotation is a million or a multiple of it above that of its question), or all of them where it
    has none. The text that is asked names hint, question, options and a request, as the published
    evaluation does; the answer is a letter, which :class:`callbacks.MMBenchScoring` finds in what
    the model writes. The category is the type of the question, the one above it that of the answer.

    Args:
        table: Such as ``mmbench_dev_en_20231003.tsv``; those of the test have no answers and cannot
            serve.
    """

    def __init__(self, table: str) -> None:
        super().__init__([table], str(Path(table).parent))

    @override
    def read_samples(self) -> list[EncodedPicture]:
        file = SuiteFile(
            suite="MMBench",
            argument="table",
            path=Path(self.files[0]),
            form="a table of MMBench's with answers, whose columns are index, question, hint, A, "
            "B, C, D, answer, category, l2-category and image",
        )
        checked = [_checked(value, number, file) for number, value in enumerate(file.rows(), 1)]
        rows = {row.index: row for row in checked}
        if len(rows) < len(checked):
            raise file.wrong("is of another version (two rows have one index)")
        is_rotated = any(index >= _ROTATION for index in rows)
        by_question: dict[int, list[Question]] = {}
        for index, row in rows.items():
            turns = [0] if is_rotated else range(len(row.choices))
            by_question.setdefault(index % _ROTATION, []).extend(map(row.asked, turns))
        samples = []
        for index, asked in by_question.items():
            if index not in rows:
                raise file.wrong(f"is of another version (rotations of {index}, which is missing)")
            fields = json.dumps({"questions": asked}).encode()
            image = _image(rows, index, file)
            samples.append(EncodedPicture(key=str(index), fields=fields, encoded=image))
        return samples


def _checked(value: object, number: int, file: SuiteFile) -> _Row:
    row = file.entry(_Row, value, f"row {number}")
    if row.answer not in [*_LETTERS][: len(row.choices)]:
        raise file.wrong(
            f"is of another version (row {number}: answer {row.answer!r} is none of its "
            f"{len(row.choices)} choices)"
        )
    return row


def _image(rows: Mapping[int, _Row], index: int, file: SuiteFile) -> str:
    image = rows[index].image
    if len(image) > _LONGEST_REFERENCE:
        return image
    other = rows.get(int(image)) if image.isdecimal() else None
    if other is None or len(other.image) <= _LONGEST_REFERENCE:
        raise file.wrong(f"is of another version (index {index}: no row has the image {image!r})")
    return other.image
