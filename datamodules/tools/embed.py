"""Computes the latents of training pictures and the text states of their captions, once for all."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import final

import numpy as np
import torch
from jaxtyping import Integer
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datamodules.datamodule import WebDatasetDataModule
from datamodules.decoding.media import MediaDecoder
from datamodules.features.latent_files import DTYPES, LatentFiles, Latents
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Unusable
from datamodules.sources.source import DataSource
from datamodules.tools.progress_bar import counting
from pretzel.errors import UserError
from pretzel.latent.base import LatentSpace
from pretzel.media.integers import IntegerArray, arrays_to_floats
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import fold, read
from pretzel.runs.initial_weights import built_by_name
from pretzel.sequence.document import caption_document
from pretzel.training.module import PretzelModule

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Outcome of :func:`embed`.

    Attributes:
        num_shards: Training shards, all of which have latents now; commands (``pipe:``) have none.
        num_present: Those that had them before.
        num_images: Pictures encoded.
        num_texts: Captions whose states were computed.
        folders: Where the latents are.
    """

    num_shards: int
    num_present: int
    num_images: int
    num_texts: int
    folders: tuple[str, ...]


def configured(files: Sequence[str]) -> tuple[PretzelModule, WebDatasetDataModule]:
    """Return the module, with the weights from which it would train, and the data of a run.

    Args:
        files: Configuration files, as for ``pretzel fit``.

    Raises:
        UserError: If the configuration is wrong, or its model or data are of another kind.
    """
    cli = ParseOnlyCLI()
    namespace = cli.parse("fit", fold([read(file) for file in files]))
    if namespace["fit"].get("data") is None:
        raise UserError(f"{' '.join(files)}: names no data")
    data = cli.build_group("data", "fit", namespace)
    seed = int(namespace["fit"]["seed_everything"] or 0)
    module = built_by_name(lambda: cli.build_model("fit", namespace), seed)
    if not isinstance(module, PretzelModule):
        raise UserError(f"model must be a PretzelModule, got a {type(module).__name__}")
    if not isinstance(data, WebDatasetDataModule):
        raise UserError(f"data must be a WebDatasetDataModule, got a {type(data).__name__}")
    return module, data


def embed(
    module: PretzelModule,
    data: WebDatasetDataModule,
    *,
    dtype: str = "float32",
    num_workers: int = 0,
    device: torch.device | str = "cpu",
) -> Embedded:
    """Compute what is missing or damaged: latents of training pictures, and text states if kept.

    Runs with the same encoder, shards, picture size and crop then read them by themselves. A shard
    appears when it is complete: what was interrupted continues, and several processes may share
    the work.

    Args:
        module: Model whose latent space encodes; its ``text_states``, if any, are filled too.
        data: Its data.
        dtype: Type of the numbers, ``float32`` or ``float16``. The encoder computes in float32.
        num_workers: Processes that decode pictures.
        device: Where the encoder runs.

    Raises:
        UserError: If pictures are cropped or flipped by chance, there is no such type, or the
            latents cannot be written.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if data.parts.has_random_pictures:
        raise UserError(
            "latents can be kept of pictures that are the same in every epoch, but data.crop or "
            "data.flip is random"
        )
    latent = module.pretzel.latent.to(device)
    num_shards = num_present = num_images = 0
    about = {"encoder": latent.identity, "dtype": dtype}
    parts = data.parts.latent_files(latent.identity, dtype, to_write=True)
    for (source, pictures), files in zip(data.parts.picture_decoders, parts, strict=True):
        files.delete_damaged()
        missing = files.missing
        num_shards += len(files.names)
        num_present += len(files.names) - len(missing)
        about["pictures"] = pictures.identity
        # in another order in each process: those that share the work meet at different shards
        shuffled = random.Random().sample(missing, len(missing))
        job = _Pictures(source, pictures, files, tuple(shuffled))
        num_images += _encode(latent, job, files, about, num_workers, device)
    return Embedded(
        num_shards=num_shards,
        num_present=num_present,
        num_images=num_images,
        num_texts=_fill_text_states(module.to(device), data),
        folders=tuple(dict.fromkeys(str(files.folder) for files in parts)),
    )


_Batch = tuple[int, list[str], Integer[np.ndarray, "n ..."] | None]
"""Number of a shard, names of pictures and their pixels; None behind the last of the shard."""


@final
class _Pictures(IterableDataset[_Batch | str]):
    """The pictures of shards that have no latents yet, in batches; a user's mistake as a text."""

    def __init__(
        self,
        source: DataSource,
        pictures: MediaDecoder,
        files: LatentFiles,
        shards: tuple[str, ...],
    ) -> None:
        self._source = source
        self._pictures = pictures
        self._files = files
        self.shards = shards

    def __iter__(self) -> Iterator[_Batch | str]:
        worker = get_worker_info()
        turn, turns = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        try:
            for number in range(turn, len(self.shards), turns):
                if self._files.has(self.shards[number]):  # by another process, meanwhile
                    continue
                named = self._named(self.shards[number])
                while batch := list(islice(named, _BATCH)):
                    names, pixels = zip(*batch, strict=True)
                    yield number, list(names), np.stack(pixels)
                yield number, [], None
        except UserError as error:
            yield str(error)

    def _named(self, shard: str) -> Iterator[tuple[str, IntegerArray]]:
        for raw in self._source.read(shard):
            if not isinstance(raw, RawSample):
                continue
            for suffix, content in raw.members.items():
                if suffix.rpartition(".")[2] not in self._pictures.medium.suffixes:
                    continue
                try:
                    yield f"{raw.key}.{suffix}", self._pictures(content)
                except Unusable:  # training skips and counts it
                    continue


def _encode(
    latent: LatentSpace,
    job: _Pictures,
    files: LatentFiles,
    about: dict[str, str],
    num_workers: int,
    device: torch.device | str,
) -> int:
    """Encode and write the pictures of shards; return their number."""
    if not job.shards:
        return 0
    names: dict[int, list[str]] = {}
    latents: dict[int, list[Latents]] = {}
    num_images = 0
    workers = min(num_workers, len(job.shards))
    with counting("pictures", None) as advance, torch.inference_mode():
        for message in DataLoader(job, batch_size=None, num_workers=workers):
            if isinstance(message, str):
                raise UserError(message)
            number, some, pixels = message
            if pixels is not None:
                x = latent.encode(arrays_to_floats(list(np.asarray(pixels))).to(device))
                rows = x.cpu().to(getattr(torch, about["dtype"])).numpy()
                names.setdefault(number, []).extend(some)
                latents.setdefault(number, []).extend(rows)
                num_images += len(rows)
                advance(len(rows))
                continue
            try:
                files.write(
                    job.shards[number], names.pop(number, []), latents.pop(number, []), about
                )
            except Exception as error:  # of the file system, or of safetensors around one
                reason = " ".join(str(error).split())
                raise UserError(
                    f"latents cannot be written to {files.folder} ({reason}); what is there "
                    "already is used"
                ) from error
    return num_images


def _fill_text_states(module: PretzelModule, data: WebDatasetDataModule) -> int:
    """Compute the text states of the captions of the training data, if a module keeps them."""
    states = module.text_states
    if states is None:
        return 0
    states.start(module.pretzel)
    captions = (
        sample.caption
        for part, decoder in data.parts
        for sample in part.source.texts("train", decoder.max_characters)
        if sample.caption
    )
    with counting("captions", None) as advance, torch.inference_mode():
        while some := list(islice(captions, _BATCH)):  # of millions, not all in memory
            documents = [caption_document(caption) for caption in dict.fromkeys(some)]
            states.fill(module.pretzel, documents)
            advance(len(some))
    states.finish()
    return states.num_computed
