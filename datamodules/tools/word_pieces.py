"""The tokenizer of the tiny vision-language model, learned from the texts of any source."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from datamodules.decoding.decoder import SampleDecoder
from datamodules.decoding.picture import PictureDecoder
from datamodules.decoding.segments import FIELD
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.sources.source import DataSource
from pretzel.errors import UserError
from pretzel.files.atomic import write_text
from pretzel.vlm.tiny.tokenizer import WordPieces


def learn_tokenizer(source: DataSource, out: Path, *, size: int, limit: int | None) -> WordPieces:
    """Learn word pieces from the training split of a source, images unread, and write them.

    Args:
        source: The samples.
        out: The JSON file.
        size: Pieces, special tokens and letters included.
        limit: Samples that are read, the first ones; None for all.

    Raises:
        UserError: If there is no text, ``size`` is too small for the letters, or the file cannot be
            written.
    """
    texts = training_texts(source, limit)
    first = next(texts, None)
    if first is None:
        raise UserError(f"{type(source).__name__}: the training split has no text to learn from")
    learned = WordPieces.train((text for some in ([first], texts) for text in some), size)
    try:
        write_text(out, learned.serialize())
    except OSError as error:
        raise UserError(f"--out: {out}: cannot be written ({error.strerror})") from error
    return learned


def training_texts(source: DataSource, limit: int | None = None) -> Iterator[str]:
    """Yield captions, questions and answers of training samples, and texts of documents."""
    decoder = source.decoder(PictureDecoder(image_size=1))
    raws = (raw for shard in source.shards("train") for raw in source.read_texts(shard))
    for raw in islice(raws, limit):
        if isinstance(raw, RawSample):
            yield from _texts(decoder, raw)


def _texts(decoder: SampleDecoder, raw: RawSample) -> Iterator[str]:
    if decoder.is_document(raw):
        segments = decoder.fields(raw)[FIELD]
        for segment in segments if isinstance(segments, list) else []:
            if isinstance(segment, dict) and isinstance(segment.get("text"), str):
                yield segment["text"]
        return
    sample = decoder.texts(raw)
    if isinstance(sample, Skipped):
        return
    yield from sample.captions
    for question, answer in sample.questions:
        yield question
        yield answer
