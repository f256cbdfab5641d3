"""The laws of shard sources, tried on the first samples of each split."""

import hashlib
from itertools import chain, combinations, islice
from typing import get_args

from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Sample, Skipped
from datamodules.sources.source import DataSource, Split
from datamodules.suites.suite import Suite
from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import Case

MOST = 3000
"""Samples of a split that are read; a larger one is judged by its beginning."""

SPLITS: tuple[Split, ...] = get_args(Split)


def raw_samples(source: DataSource, split: Split) -> list[RawSample | Skipped]:
    """Return the first samples of a split, one more than are judged if there are more."""
    shards = (source.read(shard) for shard in source.shards(split))
    return list(islice(chain.from_iterable(shards), MOST + 1))


def fingerprints(source: DataSource, split: Split) -> list[tuple[str, str]]:
    """Return key and content hash of samples."""
    found = []
    for sample in raw_samples(source, split):
        require(isinstance(sample, RawSample), f"{split} holds an unreadable sample: {sample}")
        assert isinstance(sample, RawSample)
        digest = hashlib.sha256()
        for suffix, data in sorted(sample.members.items()):
            digest.update(suffix.encode() + data)
        found.append((sample.key, digest.hexdigest()))
    return found


def splits_share_no_sample(case: Case[DataSource]) -> Deviation:
    """A sample is in two splits."""
    source = case.build()
    by_split = {split: set(fingerprints(source, split)) for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        shared = by_split[one] & by_split[other]
        first = min(shared, default=("",))[0]
        require(not shared, f"{len(shared)} samples of {one} are in {other}, first {first}")
    return unmeasured("splits share no sample")


def samples_are_counted(case: Case[DataSource]) -> Deviation:
    """The number of samples is not that which is read, or training, or a suite's test, has none."""
    source = case.build()
    needed = "test" if isinstance(source, Suite) else "train"
    for split in SPLITS:
        stated, count = source.num_samples(split), len(raw_samples(source, split))
        require(count > 0 or split != needed, f"{needed} has no sample")
        agrees = stated is None or stated == count or (count > MOST and stated > MOST)
        require(agrees, f"{split} is said to have {stated} samples, {count} are read")
    return unmeasured("samples counted")


def reading_again_gives_the_same(case: Case[DataSource]) -> Deviation:
    """Samples or their order differ when they are read again, or reading draws random numbers."""
    source, other = case.build(), case.build(seed=1)
    for split in SPLITS:
        require(source.shards(split) == other.shards(split), f"the shards of {split} differ")
        for shard in source.shards(split)[:1]:
            with untouched("reading a shard"):
                first = list(islice(source.read(shard), MOST))
            same = first == list(islice(source.read(shard), MOST))
            require(same, f"{shard} is read otherwise the second time")
    return unmeasured("samples once more")


def a_part_of_a_shard_is_read(case: Case[DataSource]) -> Deviation:
    """Reading every so-manyth sample, or those of some keys, gives others than reading them all."""
    source = case.build()
    for split in SPLITS:
        for shard in source.shards(split)[:1]:
            samples = list(islice(source.read(shard), MOST))
            for first, step in ((0, 3), (2, 1), (5, 7), (len(samples), 1)):
                part = list(islice(source.read(shard, first, step), len(samples)))
                same = len(samples) == MOST or part == samples[first::step]
                require(same, f"{shard}: other samples {first}, {first + step}, ...")
            keys = {sample.key for sample in samples[::5]}
            expected = [sample for sample in samples if sample.key in keys]
            chosen = list(islice(source.read_chosen(shard, keys), len(expected)))
            require(chosen == expected, f"{shard}: other samples of some keys")
    return unmeasured("samples of a part")


def samples_are_decoded_to_size(case: Case[DataSource]) -> Deviation:
    """None of the first samples can be decoded, or pictures are of another size than asked for."""
    source, size = case.build(), 16
    for split in SPLITS:
        decode = source.decoder(PictureDecoder(image_size=size, upscale=True))
        raws = [raw for raw in raw_samples(source, split)[:20] if isinstance(raw, RawSample)]
        decoded = [sample for raw in raws if not isinstance(sample := decode(raw), Skipped)]
        require(bool(decoded) or not raws, f"none of the first samples of {split} can be decoded")
        for sample in decoded:
            pictures = (sample.pixels,) if isinstance(sample, Sample) else sample.images
            shapes = {picture.shape for picture in pictures} - {(size, size, 3)}
            require(not shapes, f"{sample.key} has pictures of shapes {shapes}")
            require(bool(sample.key), f"a sample of {split} has no key")
    return unmeasured("decoded samples")
