"""Decodes raw samples, by a closed list of decoders, one crop and one resize."""

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from datamodules.decoding.segments import FIELD, parse_segments
from datamodules.reading.tar_shard import IMAGE_SUFFIXES, JSON_SUFFIX, TEXT_SUFFIX, RawSample
from datamodules.sample import AnySample, InterleavedSample, Sample, Skipped
from pretzel.errors import UserError
from pretzel.latent.image_input import crop_and_resize

_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleDecoder:
    """Decodes raw samples: image, caption, questions; or an interleaved document.

    A ``key.json`` with ``segments`` makes a sample a document
    (:mod:`datamodules.decoding.segments`).
    Images are cropped and resized by :func:`pretzel.latent.image_input.crop_and_resize`.
    """

    image_size: int  # height and width in pixels
    upscale: bool  # whether smaller images are enlarged; otherwise they are an error
    caption_field: str  # of key.json, where there is no key.txt
    resident: bool  # whether decoded samples are kept in memory (small data only)
    _decoded: dict[tuple[str, str], AnySample] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, raw: RawSample) -> AnySample | Skipped:
        """Return a sample decoded, or what is wrong with its bytes.

        Raises:
            UserError: If it has no caption, an image is smaller than ``image_size``, or segments
                are not as they should be.
        """
        decoded = self._decoded.get((raw.shard, raw.key))
        if decoded is not None:
            return decoded
        try:
            sample = self._decode(raw)
        except UserError:
            raise
        # Decoders raise many exception types on hostile bytes; the sample is named and skipped.
        except (
            OSError,
            ValueError,
            SyntaxError,
            KeyError,
            TypeError,
            Image.DecompressionBombError,
        ) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return Skipped(shard=raw.shard, key=raw.key, reason="damaged", detail=reason)
        if self.resident:
            self._decoded[raw.shard, raw.key] = sample
        return sample

    def _decode(self, raw: RawSample) -> AnySample:
        fields = json.loads(raw.members.get(JSON_SUFFIX, b"{}"))
        if not isinstance(fields, dict):
            raise TypeError(f"{raw.key}.json is not an object")
        if FIELD in fields:
            segments, members = parse_segments(raw, fields[FIELD])
            images = tuple(self._pixels(raw, member) for member in members)
            return InterleavedSample(key=raw.key, segments=segments, images=images)
        suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in raw.members), None)
        if suffix is None:
            raise KeyError("no image")
        pixels = self._pixels(raw, suffix)
        return Sample(
            key=raw.key,
            pixels=pixels,
            caption=self._caption(raw, fields),
            questions=tuple((str(q), str(a)) for q, a in fields.get("questions") or ()),
        )

    def _pixels(self, raw: RawSample, suffix: str) -> UInt8[np.ndarray, "height width 3"]:
        size = self.image_size
        with Image.open(io.BytesIO(raw.members[suffix]), formats=_FORMATS) as image:
            width, height = image.size
            if min(width, height) < size and not self.upscale:
                raise UserError(
                    f"image {raw.key}.{suffix} in {raw.shard} is {width}x{height} pixels, smaller "
                    f"than image_size={size}: lower image_size or set upscale: true"
                )
            return crop_and_resize(image, size)

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
