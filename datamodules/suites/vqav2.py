"""VQAv2: open questions with ten answers each (Goyal et al. 2017, https://visualqa.org)."""

from pathlib import Path
from typing import final

from typing_extensions import override

from datamodules.sources.pictures import PictureFiles
from datamodules.sources.table import read_table
from datamodules.sources.table_pictures import TableColumns
from datamodules.suites.suite import Suite


@final
class VQAv2(Suite):
    """VQAv2's questions, from its two files, which :class:`datamodules.Folder` also trains from.

    Args:
        questions: Such as ``v2_OpenEnded_mscoco_val2014_questions.json``.
        annotations: Such as ``v2_mscoco_val2014_annotations.json``; splits whose answers are not
            published cannot serve.
        images: Folder of the images, whose names end in the ``image_id``; of COCO ``val2014``.
    """

    def __init__(self, questions: str, annotations: str, images: str) -> None:
        super().__init__([questions, annotations], images)

    @override
    def read_samples(self) -> list[PictureFiles]:
        rows = read_table([Path(file) for file in self.files])
        columns = TableColumns(path=None, captions=(), questions={})
        return columns.samples(self.files[0], rows, self._root)
