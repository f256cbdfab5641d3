"""GQA: questions made of scene graphs (Hudson & Manning 2019, https://cs.stanford.edu/people/dorarad/gqa)."""

from pathlib import Path
from typing import final

from pydantic import BaseModel
from typing_extensions import override

from datamodules.sources.pictures import PictureFiles
from datamodules.suites.suite import Question, Suite, pictures_of
from datamodules.suites.suite_file import SuiteFile


class _Types(BaseModel):
    structural: str
    semantic: str


class _Entry(BaseModel):
    imageId: str  # as published
    question: str
    answer: str
    types: _Types


@final
class GQA(Suite):
    """GQA's questions, from a file of them by their numbers.

    The structural type (verify, query, choose, logical, compare) is the type of a question, the
    semantic one (object, attribute, category, relation, global) that of its answer.

    Args:
        questions: Such as ``testdev_balanced_questions.json``; files without answers, those of the
            test, cannot serve.
        images: Folder of the images, ``<imageId>.jpg``.
    """

    def __init__(self, questions: str, images: str) -> None:
        super().__init__([questions], images)

    @override
    def read_samples(self) -> list[PictureFiles]:
        file = SuiteFile(
            suite="GQA",
            argument="questions",
            path=Path(self.files[0]),
            form="a file of GQA's questions, an object by their numbers with imageId, question, "
            "answer and types",
        )
        content = file.json()
        if not isinstance(content, dict):
            raise file.wrong("is of another version (no object)")
        by_image: dict[str, list[Question]] = {}
        for number, value in content.items():
            entry = file.entry(_Entry, value, f"question {number}")
            by_image.setdefault(f"{entry.imageId}.jpg", []).append(
                {
                    "question": entry.question,
                    "answer": entry.answer,
                    "question_type": entry.types.structural,
                    "answer_type": entry.types.semantic,
                }
            )
        return pictures_of(by_image)
