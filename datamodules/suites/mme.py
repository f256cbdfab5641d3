"""MME: two questions about each image, yes and no (Fu et al. 2023, arXiv 2306.13394)."""

from pathlib import Path
from typing import final

from typing_extensions import override

from datamodules.reading.archive import MEDIA_SUFFIXES
from datamodules.sources.pictures import PictureFiles
from datamodules.suites.suite import Question, Suite, pictures_of
from datamodules.suites.suite_file import SuiteFile
from pretzel.errors import UserError

_TEXTS, _IMAGES = "questions_answers_YN", "images"


@final
class MME(Suite):
    """MME's questions, from its folder: a folder a category, a text of two lines an image.

    A line is a question, a tab, and Yes or No. The texts lie beside the images, or in
    ``questions_answers_YN`` beside ``images``. The category is the type of a question, which
    :class:`callbacks.MMEScoring` scores apart.

    Args:
        folder: ``MME_Benchmark_release_version``, or one with some of its folders.
    """

    def __init__(self, folder: str) -> None:
        super().__init__([folder], folder)

    @override
    def read_samples(self) -> list[PictureFiles]:
        by_image: dict[str, list[Question]] = {}
        for category in sorted(path for path in self._root.iterdir() if path.is_dir()):
            apart = (category / _TEXTS).is_dir()
            images = category / _IMAGES if apart else category
            for text in sorted((category / _TEXTS if apart else category).glob("*.txt")):
                names = [images / f"{text.stem}.{suffix}" for suffix in MEDIA_SUFFIXES]
                # one that is missing is skipped under the first name
                image = next((name for name in names if name.exists()), names[0])
                path = image.relative_to(self._root).as_posix()
                by_image[path] = _questions(text, category.name)
        if not by_image:
            raise UserError(
                f"MME: {str(self._root)!r} has no folders of categories with texts: folder must be "
                "MME_Benchmark_release_version"
            )
        return pictures_of(by_image)


def _questions(text: Path, category: str) -> list[Question]:
    file = SuiteFile(
        suite="MME",
        argument="folder",
        path=text,
        form="MME_Benchmark_release_version, whose texts are of two lines, each a question, a tab, "
        "and Yes or No",
    )
    rows = [line.rpartition("\t") for line in file.text().splitlines() if line.strip()]
    answers = [answer.strip().lower() for _, _, answer in rows]
    if len(rows) != 2 or not {*answers} <= {"yes", "no"}:
        raise file.wrong(f"is of another version ({len(rows)} lines, answers {answers})")
    return [
        {"question": question.strip(), "answer": answer, "question_type": category}
        for (question, _, _), answer in zip(rows, answers, strict=True)
    ]
