"""POPE: is an object in the image? (Li et al. 2023, https://github.com/RUCAIBox/POPE)."""

from pathlib import Path
from typing import Literal, final

from pydantic import BaseModel
from typing_extensions import override

from datamodules.sources.pictures import PictureFiles
from datamodules.suites.suite import Question, Suite, pictures_of
from datamodules.suites.suite_file import SuiteFile
from pretzel.errors import UserError


class _Line(BaseModel):
    image: str
    text: str
    label: Literal["yes", "no"]


@final
class POPE(Suite):
    """POPE's questions, yes or no, from its files of one JSON object a line.

    Each file is a type of question, which :class:`callbacks.POPEScoring` scores apart.

    Args:
        questions: Files by the names of their splits, such as ``random: coco_pope_random.json``,
            ``popular`` and ``adversarial``.
        images: Folder of the images that the files name; of COCO ``val2014``.

    Raises:
        UserError: If no file is named.
    """

    def __init__(self, questions: dict[str, str], images: str) -> None:
        if not questions:
            raise UserError("POPE: questions must name a file a split, got none")
        super().__init__(list(questions.values()), images)
        self.questions = questions

    @override
    def read_samples(self) -> list[PictureFiles]:
        by_image: dict[str, list[Question]] = {}
        for split, name in self.questions.items():
            file = SuiteFile(
                suite="POPE",
                argument=f"questions.{split}",
                path=Path(name),
                form="a file of POPE's, of a JSON object a line with image, text and label",
            )
            for place, value in file.json_lines():
                line = file.entry(_Line, value, place)
                by_image.setdefault(line.image, []).append(
                    {"question": line.text, "answer": line.label, "question_type": split}
                )
        return pictures_of(by_image)
