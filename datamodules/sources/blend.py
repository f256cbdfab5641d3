"""Several sources as one, each with its weight and its recipe."""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from typing_extensions import override

from datamodules.decoding.decoder import MAX_CHARACTERS, SampleDecoder
from datamodules.decoding.media import MediaDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.recipes.recipe import Recipe
from datamodules.sample import AnySample, Sample, Skipped
from datamodules.sources.source import DataSource, Part, Split
from pretzel.errors import UserError

_NAME = re.compile(r"[\w.-]+")
_BEHIND_NAME = "::"


@final
class Blend(DataSource):
    """Several sources: a training document comes from each with the probability of its weight.

    Each part has a recipe of its own, so that of the datamodule must be null. Parts are read at
    their own pace: one is passed over many times while another has not come to its end. Validation,
    test and prediction read all samples of the parts, one part after the other.

    Args:
        parts: The parts: ``name`` (in logs: ``data/<name>/epoch``), ``source``, ``recipe``,
            ``weight``; weights need not sum to one.

    Raises:
        UserError: If there is no part, two have one name, a name has other characters than letters,
            digits, ``_``, ``.`` and ``-``, or a weight is not positive.
    """

    def __init__(self, parts: list[Part]) -> None:
        if not parts:
            raise UserError("parts must name at least one source")
        for part in parts:
            if not _NAME.fullmatch(part.name):
                raise UserError(f"parts: name {part.name!r} must be letters, digits, _, . and -")
            if not 0 < part.weight < math.inf:
                raise UserError(f"parts: weight of {part.name} must be positive, not {part.weight}")
            if isinstance(part.source, Blend):
                raise UserError(f"parts: source of {part.name} must not be a Blend itself")
        self._parts = {part.name: part for part in parts}
        if len(self._parts) < len(parts):
            raise UserError(f"parts: names must differ, not {', '.join(p.name for p in parts)}")

    @override
    def parts(self, recipe: Recipe | None) -> tuple[Part, ...]:
        """Return the parts.

        Raises:
            UserError: If there is a recipe beside theirs.
        """
        if recipe is not None:
            raise UserError(
                f"recipe must be null where the source is a Blend, whose parts have recipes of "
                f"their own, not {type(recipe).__name__}"
            )
        return tuple(self._parts.values())

    @override
    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the shards of all parts, each behind the name of its part (``NAME::SHARD``)."""
        return tuple(
            f"{part.name}{_BEHIND_NAME}{shard}"
            for part in self._parts.values()
            for shard in part.source.shards(split)
        )

    @override
    def num_samples(self, split: Split) -> int | None:
        counts = [part.source.num_samples(split) for part in self._parts.values()]
        return None if None in counts else sum(count for count in counts if count is not None)

    @override
    def identities(self, shards: tuple[str, ...]) -> tuple[str, ...]:
        by_shard: dict[str, str] = {}
        for part in self._parts.values():
            own = [shard for shard in shards if _part_and_shard(shard)[0] == part.name]
            inner = tuple(_part_and_shard(shard)[1] for shard in own)
            by_shard |= zip(own, part.source.identities(inner), strict=True)
        return tuple(f"{_part_and_shard(shard)[0]} {by_shard[shard]}" for shard in shards)

    @override
    def read(self, shard: str, first: int = 0, step: int = 1) -> Iterator[RawSample | Skipped]:
        name, inner = _part_and_shard(shard)
        for raw in self._parts[name].source.read(inner, first, step):
            yield replace(raw, shard=shard)

    @override
    def read_texts(self, shard: str) -> Iterator[RawSample | Skipped]:
        name, inner = _part_and_shard(shard)
        for raw in self._parts[name].source.read_texts(inner):
            yield replace(raw, shard=shard)

    @override
    def read_chosen(self, shard: str, keys: Collection[str]) -> Iterator[RawSample | Skipped]:
        name, inner = _part_and_shard(shard)
        for raw in self._parts[name].source.read_chosen(inner, keys):
            yield replace(raw, shard=shard)

    @override
    def decoder(self, media: MediaDecoder, max_characters: int = MAX_CHARACTERS) -> SampleDecoder:
        """Return a decoder that decodes the samples of each part by the part's own."""
        return _BlendDecoder(
            media=media,
            caption_field=self.caption_field,
            resident=self.resident,
            decoders={
                part.name: part.source.decoder(media, max_characters)
                for part in self._parts.values()
            },
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class _BlendDecoder(SampleDecoder):
    """Decodes each sample by the decoder of its part."""

    decoders: Mapping[str, SampleDecoder]  # by name of the part

    @property
    def is_random(self) -> bool:
        return any(decoder.is_random for decoder in self.decoders.values())

    def __call__(self, raw: RawSample, draw: torch.Generator | None = None) -> AnySample | Skipped:
        return self.decoders[_part_and_shard(raw.shard)[0]](raw, draw)

    def texts(self, raw: RawSample) -> Sample | Skipped:
        return self.decoders[_part_and_shard(raw.shard)[0]].texts(raw)


def _part_and_shard(shard: str) -> tuple[str, str]:
    name, _, inner = shard.partition(_BEHIND_NAME)
    return name, inner
