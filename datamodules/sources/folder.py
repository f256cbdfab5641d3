"""Pictures in a folder, as they lie there: nothing is packed."""

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import final, get_args

from typing_extensions import override

from datamodules.decoding.captions import CaptionChoice, FirstCaption
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.sources.held_out import check_shares, split_of
from datamodules.sources.pictures import PictureFiles, pictures_in
from datamodules.sources.source import DataSource, Split
from datamodules.sources.table import read_table
from datamodules.sources.table_pictures import TableColumns
from pretzel.errors import UserError

SHARD_SIZE = 32
"""Samples of what is treated as a shard: few, so that training shuffles well."""


@final
class Folder(DataSource):
    """Pictures of a folder, with texts beside them or in a table.

    A folder is searched with all folders in it; a picture ``name.jpg`` goes with ``name.txt``, or
    with ``name.json`` as in :class:`datamodules.Shards`. Hidden files are left out.

    A table is a ``.csv``, ``.tsv``, ``.jsonl``, ``.json`` (a list of objects, such as LLaVA's) or
    ``.parquet`` file whose rows name a picture and hold its caption, a question and an answer,
    ``questions`` or ``conversations``. Rows of one picture are one sample. VQAv2 is a list of two
    files: questions, annotations; its pictures are found by the number in their names.

    Pictures stay inside their folder: absolute paths and ``..`` in a table are refused, links that
    lead out of it are skipped, and folders that are links are not entered.

    Args:
        train: Folder, table, or VQAv2's two files of the training samples.
        val: The same of the validation samples; or a share of the training samples that is held
            out, by a hash of the key; none if not given.
        test: The same of the test samples.
        images: Folder that the paths in tables begin at; that of the table if not given.
        path_field: Column of the pictures' paths; ``path``, ``image``, ``file_name`` or
            ``filename`` if not given.
        caption_field: Column, or field of ``name.json``, that holds the caption, as for
            :class:`datamodules.Shards`.
        caption_choice: Chooses one of several captions; the first if not given.
        question_field: Column of a question.
        answer_field: Column of its answer, or of a list of answers.
        questions_field: Column of lists of questions with answers.

    Raises:
        UserError: If no training samples are named, or shares are out of range.
    """

    def __init__(
        self,
        train: str | list[str],
        val: float | str | list[str] | None = None,
        test: float | str | list[str] | None = None,
        images: str | None = None,
        path_field: str | None = None,
        caption_field: str | list[str] = "caption",
        caption_choice: CaptionChoice | None = None,
        question_field: str = "question",
        answer_field: str = "answer",
        questions_field: str = "questions",
    ) -> None:
        if not train:
            raise UserError(f"train must name a folder or a table, got {train!r}")
        by_split: dict[Split, float | str | list[str] | None] = {
            "train": train,
            "val": val,
            "test": test,
        }
        self._shares = {s: p for s, p in by_split.items() if isinstance(p, int | float)}
        check_shares({str(split): share for split, share in self._shares.items()})
        self._places: dict[Split, list[str]] = {
            split: [place] if isinstance(place, str) else list(place)
            for split, place in by_split.items()
            if place and not isinstance(place, int | float)
        }
        self.caption_field = caption_field
        self.caption_choice = caption_choice or FirstCaption()
        self._images = images
        self._path_field = path_field
        # Names that questions are read by, and the columns that hold them.
        self._columns = {
            "question": question_field,
            "answer": answer_field,
            "questions": questions_field,
        }
        self._pictures: dict[str, tuple[PictureFiles, ...]] = {}  # by name of the split

    @override
    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the names of what is treated as shards, of 32 samples each.

        Raises:
            UserError: If a folder or table is missing or cannot be read, holds no picture, a path
                in it leads out of the folder of pictures, or shares leave the split no sample.
        """
        return tuple(
            f"{self._name(split)}#{number:05d}"
            for number in range(math.ceil(self.num_samples(split) / SHARD_SIZE))
        )

    @override
    def num_samples(self, split: Split) -> int:
        name = self._name(split)
        return 0 if name is None else len(self._all(name))

    @override
    def identities(self, shards: tuple[str, ...]) -> tuple[str, ...]:
        """Return the hash of each shard's keys, texts and pictures."""
        root_and_files = map(self._of_shard, shards)
        texts = ("\n".join(p.identity(root) for p in files) for root, files in root_and_files)
        return tuple(hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts)

    @override
    def read(self, shard: str, first: int = 0, step: int = 1) -> Iterator[RawSample | Skipped]:
        root, pictures = self._of_shard(shard)
        return (picture.read(shard, root) for picture in pictures[first::step])

    @override
    def read_texts(self, shard: str) -> Iterator[RawSample | Skipped]:
        root, pictures = self._of_shard(shard)
        return (picture.texts().read(shard, root) for picture in pictures)

    @override
    def read_chosen(self, shard: str, keys: Collection[str]) -> Iterator[RawSample | Skipped]:
        root, pictures = self._of_shard(shard)
        return (picture.read(shard, root) for picture in pictures if picture.key in keys)

    def _name(self, split: Split) -> str | None:
        """Return what the shards of a split are called, None where there is no such split."""
        if split in self._shares:
            return f"{self._name('train')}:{split}"
        return "::".join(self._places[split]) if split in self._places else None

    def _of_shard(self, shard: str) -> tuple[Path, Sequence[PictureFiles]]:
        """Return the folder that the paths of a shard's samples begin at, and the samples."""
        name, _, number = shard.rpartition("#")
        begin = int(number) * SHARD_SIZE
        return self._root(self._split(name)), self._all(name)[begin : begin + SHARD_SIZE]

    def _split(self, name: str) -> Split:
        return next(split for split in get_args(Split) if self._name(split) == name)

    def _all(self, name: str) -> tuple[PictureFiles, ...]:
        """Return the samples of a split, which are kept."""
        if name not in self._pictures:
            split = self._split(name)
            pictures = found = self._find(split)
            if split in ("train", *self._shares):
                pictures = [p for p in found if split_of(p.key, self._shares) == split]
            if not pictures:
                shares = " and ".join(f"{s}={share}" for s, share in self._shares.items())
                raise UserError(f"{split} gets none of the {len(found)} samples by {shares}")
            self._pictures[name] = tuple(pictures)
        return self._pictures[name]

    def _paths(self, split: Split) -> list[Path]:
        return [Path(place) for place in self._places["train" if split in self._shares else split]]

    def _root(self, split: Split) -> Path:
        first = self._paths(split)[0]
        if first.is_dir():
            return first
        return first.parent if self._images is None else Path(self._images)

    def _find(self, split: Split) -> list[PictureFiles]:
        paths, root = self._paths(split), self._root(split)
        for path in (*paths, root):
            if not path.exists():
                raise UserError(f"{split} {str(path)!r} is no folder or file of this machine")
        if paths[0].is_dir():
            if len(paths) > 1:
                raise UserError(f"{split} must name one folder, got {', '.join(map(str, paths))}")
            self._check_apart(split, root)
            pictures = pictures_in(root)
        else:
            captions = self.caption_field
            columns = TableColumns(
                path=self._path_field,
                captions=[captions] if isinstance(captions, str) else captions,
                questions=self._columns,
            )
            pictures = columns.samples(str(paths[0]), read_table(paths), root)
        if not pictures:
            raise UserError(f"{split} {str(paths[0])!r} holds no picture")
        return pictures

    def _check_apart(self, split: Split, root: Path) -> None:
        """Refuse a folder that holds the folder of another split.

        Raises:
            UserError: Naming both.
        """
        for other, places in self._places.items():
            inner = Path(places[0])
            if inner.is_dir() and root.resolve() in inner.resolve().parents:
                raise UserError(
                    f"{split} {str(root)!r} holds the folder of {other}, {str(inner)!r}"
                )
