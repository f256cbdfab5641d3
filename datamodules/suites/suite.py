"""The base of suites: a source with questions alone, of which there is only a test split."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from typing_extensions import override

from datamodules.reading.archive import MEDIA_SUFFIXES, unicode_name
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.sources.pictures import PictureFiles
from datamodules.sources.source import DataSource, Split
from datamodules.suites.encoded_picture import EncodedPicture
from pretzel.errors import UserError

Question = Mapping[str, Any]
"""An entry as :mod:`datamodules.decoding.questions` takes it, with types and choices."""
SuiteSample = PictureFiles | EncodedPicture


class Suite(DataSource, ABC):
    """Questions about images as they are published to measure models: a test split alone.

    All questions about an image are one sample. An image that is missing or damaged is skipped,
    counted and named as in other data.

    Args:
        files: The files that questions are read from.
        root: Folder that the images are in.
    """

    def __init__(self, files: Sequence[str], root: str) -> None:
        self.files = tuple(files)
        self._root = Path(root)
        self._samples: tuple[SuiteSample, ...] | None = None

    @abstractmethod
    def read_samples(self) -> Sequence[SuiteSample]:
        """Read the files.

        Raises:
            UserError: If one is missing or of another version.
        """

    def describe(self) -> str:
        """Return suite and files, as a fact beside figures."""
        return f"{type(self).__name__}: {', '.join(Path(file).name for file in self.files)}"

    @override
    def shards(self, split: Split) -> tuple[str, ...]:
        return ("::".join(self.files),) if self.num_samples(split) else ()

    @override
    def num_samples(self, split: Split) -> int:
        return len(self._all()) if split == "test" else 0

    @override
    def identities(self, shards: tuple[str, ...]) -> tuple[str, ...]:
        texts = ("\n".join(s.identity(self._root) for s in self._all()) for _ in shards)
        return tuple(hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts)

    @override
    def read(self, shard: str, first: int = 0, step: int = 1) -> Iterator[RawSample | Skipped]:
        return (s.read(shard, self._root) for s in islice(self._all(), first, None, step))

    @override
    def read_texts(self, shard: str) -> Iterator[RawSample | Skipped]:
        return (sample.texts().read(shard, self._root) for sample in self._all())

    @override
    def read_chosen(self, shard: str, keys: Collection[str]) -> Iterator[RawSample | Skipped]:
        return (s.read(shard, self._root) for s in self._all() if s.key in keys)

    def _all(self) -> tuple[SuiteSample, ...]:
        if self._samples is None:
            if not self._root.is_dir():
                raise UserError(
                    f"{type(self).__name__}: the folder of images {str(self._root)!r} does not "
                    "exist: name it by images"
                )
            self._samples = tuple(self.read_samples())
            if not self._samples:
                raise UserError(
                    f"{type(self).__name__}: {', '.join(map(repr, self.files))} holds no question"
                )
        return self._samples


def pictures_of(questions: Mapping[str, Sequence[Question]]) -> list[PictureFiles]:
    """Return a sample an image, with the questions about it, by its path in the folder.

    Raises:
        UserError: If a path leads out of the folder.
    """
    samples = []
    for path, asked in questions.items():
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise UserError(f"image {path!r} leads out of the folder of images")
        stem, _, suffix = path.rpartition(".")
        if suffix.lower() not in MEDIA_SUFFIXES:
            stem, suffix = path, MEDIA_SUFFIXES[0]
        fields = json.dumps({"questions": asked}).encode()
        key = unicode_name(stem)
        samples.append(PictureFiles(key=key, files=((suffix.lower(), path),), fields=fields))
    return samples
