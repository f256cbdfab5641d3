"""SEED-Bench: multiple choice, whose choices are compared by likelihood (Li et al. 2023)."""

from pathlib import Path
from typing import Literal, final

from pydantic import BaseModel, Field
from typing_extensions import override

from datamodules.sources.pictures import PictureFiles
from datamodules.suites.suite import Question, Suite, pictures_of
from datamodules.suites.suite_file import SuiteFile


class _Content(BaseModel):
    questions: list[dict[str, object]]
    question_type: dict[str, int]


class _Kind(BaseModel):
    data_type: Literal["image", "video"]


class _Entry(BaseModel):
    data_id: str
    question: str = Field(min_length=1)
    question_type_id: int
    answer: Literal["A", "B", "C", "D"]
    choice_a: str = Field(min_length=1)
    choice_b: str = Field(min_length=1)
    choice_c: str = Field(min_length=1)
    choice_d: str = Field(min_length=1)


@final
class SEEDBench(Suite):
    """The questions of SEED-Bench about images; those about videos are left out.

    Evaluation dimensions, such as Scene Understanding, are types of questions. The answer is the
    text of a choice: :class:`callbacks.OwnChoices` compares the likelihoods of the choices, as the
    published evaluation does.

    Args:
        questions: ``SEED-Bench.json``; not that of SEED-Bench-2.
        images: Folder of the images that the file names, ``SEED-Bench-image``.
    """

    def __init__(self, questions: str, images: str) -> None:
        super().__init__([questions], images)

    @override
    def read_samples(self) -> list[PictureFiles]:
        file = SuiteFile(
            suite="SEED-Bench",
            argument="questions",
            path=Path(self.files[0]),
            form="SEED-Bench.json, with questions (of data_type image or video, data_id, question, "
            "choice_a to choice_d, answer, question_type_id) and question_type",
        )
        content = file.entry(_Content, file.json(), "the file")
        names = {number: name for name, number in content.question_type.items()}
        by_image: dict[str, list[Question]] = {}
        for place, value in enumerate(content.questions):
            where = f"question {place}"
            if file.entry(_Kind, value, where).data_type == "video":
                continue
            entry = file.entry(_Entry, value, where)
            if entry.question_type_id not in names:
                raise file.wrong(
                    f"is of another version ({where}: question_type has no "
                    f"{entry.question_type_id})"
                )
            choices = [entry.choice_a, entry.choice_b, entry.choice_c, entry.choice_d]
            by_image.setdefault(entry.data_id, []).append(
                {
                    "question": entry.question,
                    "answer": choices["ABCD".index(entry.answer)],
                    "choices": choices,
                    "question_type": names[entry.question_type_id],
                }
            )
        return pictures_of(by_image)
