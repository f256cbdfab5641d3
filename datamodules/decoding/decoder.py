"""Decodes raw samples, by a closed list of decoders."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from datamodules.decoding.captions import CaptionChoice, FirstCaption, read_captions
from datamodules.decoding.excerpt import excerpt
from datamodules.decoding.media import MediaDecoder
from datamodules.decoding.questions import (
    CONVERSATIONS_FIELD,
    ENTRY_FIELDS,
    QUESTIONS_FIELD,
    parse_questions,
)
from datamodules.decoding.segments import FIELD, parse_segments
from datamodules.features.latent_files import LatentFiles
from datamodules.reading.archive import JSON_SUFFIX
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import AnySample, ImageArray, InterleavedSample, Sample, Skipped, Unusable
from pretzel.media.base import Medium
from pretzel.rng import stream
from pretzel.sequence.document import Text, Truth

S = TypeVar("S", str, tuple[str, ...])

MAX_CHARACTERS = 10_000
"""Most characters of a text, unless the datamodule says otherwise."""

_MOST_JSON = 2**24  # bytes: what is parsed takes many times the memory


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleDecoder:
    """Decodes raw samples: image, caption, questions; or an interleaved document.

    A ``key.json`` with ``segments`` makes a sample a document
    (:mod:`datamodules.decoding.segments`). Captions are read by
    :mod:`datamodules.decoding.captions`, questions by :mod:`datamodules.decoding.questions`. All
    other fields are the sample's ground truth, as they stand there.
    """

    media: MediaDecoder  # of all images
    caption_field: str | Sequence[str]  # as read_captions takes it
    resident: bool  # whether decoded samples are kept in memory (small data only)
    caption_choice: CaptionChoice = field(default_factory=FirstCaption)
    max_characters: int = MAX_CHARACTERS  # of a caption, question, answer, or all of a document
    latents: LatentFiles | None = None  # given in the place of images that have them there
    _decoded: dict[tuple[str, str], AnySample] = field(default_factory=dict, init=False, repr=False)

    @property
    def medium(self) -> Medium:
        """Kind and size of the images."""
        return self.media.medium

    @property
    def is_random(self) -> bool:
        """Whether training images are cropped or flipped, or captions chosen, by chance."""
        return self.media.is_random or self.caption_choice.is_random

    def __call__(self, raw: RawSample, draw: torch.Generator | None = None) -> AnySample | Skipped:
        """Return a sample decoded, or why it cannot serve.

        Args:
            raw: The sample's members.
            draw: Random numbers of its crops and flips and of the choice of its caption, which
                belong to the sample and the epoch; None in evaluation, where nothing is left to
                chance.
        """
        is_kept = self.resident and draw is None
        decoded = self._decoded.get((raw.shard, raw.key)) if is_kept else None
        if decoded is not None:
            return decoded
        try:
            sample = self._decode(raw, draw)
        except Unusable as fault:
            return fault.skipped(raw.shard, raw.key)
        if is_kept:
            self._decoded[raw.shard, raw.key] = sample
        return sample

    def texts(self, raw: RawSample) -> Sample | Skipped:
        """Return caption and questions of a sample without its image, or why it has none.

        Of an interleaved document there are none.
        """
        try:
            return self._texts(raw, self.fields(raw), np.zeros((0, 0, 3), dtype=np.uint8), None)
        except Unusable as fault:
            return fault.skipped(raw.shard, raw.key)

    def is_document(self, raw: RawSample) -> bool:
        """Tell whether a sample is an interleaved document."""
        try:
            return FIELD in self.fields(raw)
        except Unusable:
            return False

    def _decode(self, raw: RawSample, draw: torch.Generator | None) -> AnySample:
        fields = self.fields(raw)
        if FIELD in fields:
            segments, members = parse_segments(raw, fields[FIELD], self.medium.suffixes)
            contents = [segment.content for segment in segments if isinstance(segment, Text)]
            self._check_length(sum(map(len, contents)))
            _check_unicode(raw.key, *contents)
            images = tuple(self._pixels(raw, member, draw) for member in members)
            truth = {name: value for name, value in fields.items() if name != FIELD}
            return InterleavedSample(key=raw.key, segments=segments, images=images, truth=truth)
        suffixes = [suffix for suffix in self.medium.suffixes if suffix in raw.members]
        if not suffixes:
            raise _without_image(raw)
        if len(suffixes) > 1:  # one may be the mask of the other
            names = ", ".join(f"{raw.key}.{suffix}" for suffix in suffixes)
            raise Unusable("name twice", f"more than one picture: {names}")
        return self._texts(raw, fields, self._pixels(raw, suffixes[0], draw), draw)

    def fields(self, raw: RawSample) -> dict[str, Any]:
        """Return what ``key.json`` holds; nothing where there is none.

        Raises:
            Unusable: If it is no object of JSON.
        """
        name = f"{raw.key}.{JSON_SUFFIX}"
        content = raw.members.get(JSON_SUFFIX, b"{}")
        if len(content) > _MOST_JSON:
            raise Unusable("too large", f"{name}: {len(content)} bytes, more than {_MOST_JSON}")
        try:
            fields = json.loads(content)
        except RecursionError:
            raise Unusable("nested too deep", name) from None
        except ValueError as error:  # neither UTF-8 nor JSON
            raise Unusable("damaged", f"{name}: {error}") from None
        if not isinstance(fields, dict):
            raise Unusable("unknown form", f"{name} is not an object but {excerpt(fields)}")
        return fields

    def _texts(
        self,
        raw: RawSample,
        fields: dict[str, Any],
        pixels: ImageArray,
        draw: torch.Generator | None,
    ) -> Sample:
        if draw is not None:  # of its own: with or without a choice, the crops are the same
            draw = stream("caption", int(torch.randint(2**62, (), generator=draw)))
        captions = read_captions(raw, fields, self.caption_field)
        caption = self.caption_choice.choose(captions, draw)
        asked = parse_questions(fields)
        texts = [caption, *(t for one in asked for t in (one.question, *one.answers, *one.choices))]
        self._check_length(max(map(len, texts)))
        _check_unicode(raw.key, *texts)
        return Sample(
            key=raw.key,
            pixels=pixels,
            caption=caption,
            captions=tuple(filter(None, captions)),
            questions=tuple((one.question, one.answer) for one in asked),
            answers=tuple(one.answers for one in asked),
            answer_types=_if_any(one.answer_type for one in asked),
            question_types=_if_any(one.question_type for one in asked),
            choices=_if_any(one.choices for one in asked),
            truth=self._truth(fields),
        )

    def _truth(self, fields: dict[str, Any]) -> Truth:
        names = self.caption_field
        captions = (names,) if isinstance(names, str) else names
        texts = {*captions, QUESTIONS_FIELD, CONVERSATIONS_FIELD, *ENTRY_FIELDS}
        return {name: value for name, value in fields.items() if name not in texts}

    def _pixels(self, raw: RawSample, suffix: str, draw: torch.Generator | None) -> ImageArray:
        if self.latents is not None:
            known = self.latents.get(raw.shard, f"{raw.key}.{suffix}")
            if known is not None:
                return known
        try:
            return self.media(raw.members[suffix], draw)
        except Unusable as fault:
            raise Unusable(fault.reason, f"{raw.key}.{suffix}: {fault}") from fault

    def _check_length(self, num_characters: int) -> None:
        if num_characters > self.max_characters:
            raise Unusable(
                "text too long",
                f"a text of {num_characters} characters, more than max_characters="
                f"{self.max_characters}",
            )


def _if_any(values: Iterable[S]) -> tuple[S, ...]:
    """Return texts, or tuples, none at all if all are empty."""
    kept = tuple(values)
    return kept if any(kept) else ()


def _check_unicode(*texts: str) -> None:
    """Refuse halves of characters, which no tokenizer takes: JSON may hold them, and file names."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Unusable("damaged", f"{excerpt(text)} is not Unicode: {error.reason}") from None


def _without_image(raw: RawSample) -> Unusable:
    dotted = [suffix for suffix in raw.members if "." in suffix]
    if dotted:
        return Unusable(
            "key with dots",
            f"{raw.key}.{dotted[0]}: a key ends at the first dot of a name, and nothing names the "
            "image behind it",
        )
    return Unusable("no image", f"only {', '.join(raw.members) or 'unknown members'}")
