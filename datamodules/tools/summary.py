"""Counts of the samples of a split, made of chunks and added up."""

import hashlib
import heapq
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from datamodules.decoding.decoder import SampleDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import InterleavedSample, Sample, Skipped
from pretzel.files.image_file import FORMATS, IMAGE_SUFFIXES
from pretzel.sequence.document import Text

NUM_PICKED = 48
"""Samples that are shown of each split."""
_NUM_NAMED = 5  # skipped samples of each reason
MOST_ANSWERS = 50_000
"""Different answers that are counted."""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A sample to show; those with the smallest hashes of their keys are, in any order."""

    place: str
    key: str
    pictures: tuple[UInt8[np.ndarray, "height width 3"], ...]
    texts: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]

    def __lt__(self, other: "Pick") -> bool:
        return (self.place, self.key) < (other.place, other.key)


@dataclass
class Summary:
    """Counts of the samples of one split."""

    samples: int = 0
    documents: int = 0  # interleaved ones among the samples
    num_bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # width and height
    caption_words: Counter[int] = field(default_factory=Counter)
    questions: Counter[int] = field(default_factory=Counter)  # of a sample
    answers: Counter[str] = field(default_factory=Counter)
    uncounted_answers: int = 0  # given when there were as many different ones as are counted
    skipped: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[Skipped]] = field(default_factory=dict)
    picks: list[Pick] = field(default_factory=list)

    def merge(self, other: "Summary") -> None:
        """Add the counts of other samples."""
        self.samples += other.samples
        self.documents += other.documents
        self.num_bytes += other.num_bytes
        for name in ("formats", "sizes", "caption_words", "questions", "skipped"):
            getattr(self, name).update(getattr(other, name))
        for answer, count in other.answers.items():
            if answer in self.answers or len(self.answers) < MOST_ANSWERS:
                self.answers[answer] += count
            else:
                self.uncounted_answers += count
        for reason, samples in other.named.items():
            known = self.named.setdefault(reason, [])
            known += samples[: _NUM_NAMED - len(known)]
        self.picks = heapq.nsmallest(NUM_PICKED, [*self.picks, *other.picks])

    def skip(self, sample: Skipped) -> None:
        """Count a sample that cannot serve."""
        self.skipped[sample.reason] += 1
        known = self.named.setdefault(sample.reason, [])
        known += [sample][: _NUM_NAMED - len(known)]


def summarise(decoder: SampleDecoder, raws: Iterable[RawSample | Skipped]) -> Summary:
    """Return the counts of raw samples, and pictures of some as the decoder makes them."""
    summary = Summary()
    for raw in raws:
        sample = decoder(raw) if isinstance(raw, RawSample) else raw
        if isinstance(sample, Skipped):
            summary.skip(sample)
            continue
        assert isinstance(raw, RawSample)
        _count(summary, raw, sample)
    summary.picks = heapq.nsmallest(NUM_PICKED, summary.picks)
    return summary


def _count(summary: Summary, raw: RawSample, sample: Sample | InterleavedSample) -> None:
    summary.samples += 1
    summary.num_bytes += sum(map(len, raw.members.values()))
    for suffix, data in raw.members.items():
        if suffix.rpartition(".")[2] in IMAGE_SUFFIXES:
            _count_picture(summary, data)
    place = hashlib.sha256(raw.key.encode()).hexdigest()
    if isinstance(sample, InterleavedSample):
        summary.documents += 1
        texts = tuple(s.content for s in sample.segments if isinstance(s, Text))
        pick = Pick(place=place, key=raw.key, pictures=sample.images, texts=texts, questions=())
    else:
        if sample.caption:
            summary.caption_words[len(sample.caption.split())] += 1
        summary.questions[len(sample.questions)] += 1
        summary.answers.update(answer for _, answer in sample.questions)
        texts = (sample.caption,) if sample.caption else ()
        pick = Pick(
            place=place,
            key=raw.key,
            pictures=(sample.pixels,),
            texts=texts,
            questions=sample.questions,
        )
    summary.picks.append(pick)


def _count_picture(summary: Summary, data: bytes) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            summary.formats[f"{picture.format} {picture.mode}"] += 1
            summary.sizes[picture.size] += 1
    except Exception:  # of every type on hostile bytes, in a member that the sample does not need
        summary.formats["no picture"] += 1
