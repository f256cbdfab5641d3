"""Decodes raw samples, by a closed list of decoders."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from datamodules.decoding.picture import PictureDecoder
from datamodules.decoding.segments import FIELD, parse_segments
from datamodules.reading.tar_shard import JSON_SUFFIX, TEXT_SUFFIX, RawSample
from datamodules.sample import AnySample, InterleavedSample, Sample, Skipped, Unusable
from pretzel.errors import UserError
from pretzel.files.image_file import IMAGE_SUFFIXES


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleDecoder:
    """Decodes raw samples: image, caption, questions; or an interleaved document.

    A ``key.json`` with ``segments`` makes a sample a document
    (:mod:`datamodules.decoding.segments`).
    """

    pictures: PictureDecoder  # of all images
    caption_field: str  # of key.json, where there is no key.txt
    resident: bool  # whether decoded samples are kept in memory (small data only)
    _decoded: dict[tuple[str, str], AnySample] = field(default_factory=dict, init=False, repr=False)

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.pictures.image_size

    @property
    def is_random(self) -> bool:
        """Whether training images are cropped or flipped by chance."""
        return self.pictures.is_random

    def __call__(self, raw: RawSample, draw: torch.Generator | None = None) -> AnySample | Skipped:
        """Return a sample decoded, or what is wrong with its bytes.

        Args:
            raw: The sample's members.
            draw: Random numbers of its crops and flips, which belong to the sample and the epoch;
                None in evaluation, where nothing is left to chance.

        Raises:
            UserError: If it has no caption, an image is smaller than ``image_size``, or segments
                are not as they should be.
        """
        is_kept = self.resident and draw is None
        decoded = self._decoded.get((raw.shard, raw.key)) if is_kept else None
        if decoded is not None:
            return decoded
        try:
            sample = self._decode(raw, draw)
        except UserError:
            raise
        except Unusable as error:
            return Skipped(shard=raw.shard, key=raw.key, reason=error.reason, detail=error.detail)
        # Decoders raise many exception types on hostile bytes; the sample is named and skipped.
        except (
            OSError,
            ValueError,
            SyntaxError,
            KeyError,
            TypeError,
        ) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return Skipped(shard=raw.shard, key=raw.key, reason="damaged", detail=reason)
        if is_kept:
            self._decoded[raw.shard, raw.key] = sample
        return sample

    def _decode(self, raw: RawSample, draw: torch.Generator | None) -> AnySample:
        fields = json.loads(raw.members.get(JSON_SUFFIX, b"{}"))
        if not isinstance(fields, dict):
            raise TypeError(f"{raw.key}.json is not an object")
        if FIELD in fields:
            segments, members = parse_segments(raw, fields[FIELD])
            images = tuple(self._pixels(raw, member, draw) for member in members)
            return InterleavedSample(key=raw.key, segments=segments, images=images)
        suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in raw.members), None)
        if suffix is None:
            raise KeyError("no image")
        pixels = self._pixels(raw, suffix, draw)
        return Sample(
            key=raw.key,
            pixels=pixels,
            caption=self._caption(raw, fields),
            questions=tuple((str(q), str(a)) for q, a in fields.get("questions") or ()),
        )

    def _pixels(
        self, raw: RawSample, suffix: str, draw: torch.Generator | None
    ) -> UInt8[np.ndarray, "height width 3"]:
        try:
            return self.pictures(raw.members[suffix], draw)
        except Unusable as error:
            if error.reason != "too small":
                raise
            place = f"image {raw.key}.{suffix} in {raw.shard}"
            raise UserError(f"{place} is {error.detail}") from error

    def _caption(self, raw: RawSample, fields: dict[str, Any]) -> str:
        if TEXT_SUFFIX in raw.members:
            caption = raw.members[TEXT_SUFFIX].decode()
        else:
            caption = fields.get(self.caption_field) or ""
        if not isinstance(caption, str):
            raise TypeError(f"field {self.caption_field!r} of {raw.key}.json is not text")
        if not caption.strip():
            raise UserError(
                f"sample {raw.key} in {raw.shard} has no caption: neither {raw.key}.txt nor field "
                f"{self.caption_field!r} of {raw.key}.json says anything"
            )
        return caption.strip()
