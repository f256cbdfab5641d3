"""How fast training data comes: beside plain webdataset, at the start, after a resume, over time.

    python -m benchmarks.data            # a few minutes
    python -m benchmarks.data --quick    # seconds: does everything run?

All arms run in one process, in turn. A rate is that of the stream as training sees it: batches of
float pixels with their texts, from local tar shards of JPEG files made here. webdataset's pipeline
is the plainest: shards, shuffle, the same decoding and crop, batches in the worker. Where they are
installed, MosaicML Streaming reads the same pictures from shards of its own format, and
megatron-energon the same shards. A ratio is the median over rounds of the rates of one round,
smallest and largest in brackets.
"""

import argparse
import gc
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.data_arms import Arm, Corpus, jpeg, make, others, ours
from benchmarks.measure import Ratio
from datamodules import ColouredShapes, Scenes
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.index import write_index
from datamodules.reading.tar_shard import RawSample

GOALS = {"webdataset": 0.95, "MosaicML Streaming": 1.0, "energon": 1.0}
"""Least ratios of our rate to those of others that are aimed at."""
SECONDS = 2.0
"""Most seconds until the first batch, from the beginning and after a resume."""
_WARM = 6


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast batches came, by the clock and by the CPU time of all processes.

    Attributes:
        clock: Batches a second, those at the beginning left out.
        cpu: Batches in a second of CPU time, the start of workers included.
    """

    clock: float
    cpu: float


def pace(batches: Iterator[object], count: int) -> Pace:
    """Take so many batches, after a few that do not count by the clock, and end the workers."""
    spent = _cpu_seconds()
    for _ in range(_WARM):
        next(batches)
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    seconds = time.perf_counter() - begin
    del batches  # the last reference: workers end
    gc.collect()
    return Pace(clock=count / seconds, cpu=(count + _WARM) / (_cpu_seconds() - spent))


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Our stream beside another.

    Attributes:
        samples: Our samples a second, by the clock.
        clock: Ratio of the rates by the clock.
        cpu: Ratio of the batches in a second of CPU time.
    """

    samples: float
    clock: Ratio
    cpu: Ratio


def compare(
    corpus: Corpus, other: Arm, batch_size: int, count: int, rounds: int, workers: Sequence[int]
) -> dict[int, Rates]:
    """Run our stream and another in turn; return their rates for numbers of workers."""
    paces: dict[int, list[tuple[Pace, Pace]]] = {number: [] for number in workers}
    for turn in range(rounds):
        for number in workers:
            arms: list[Arm] = [ours, other] if turn % 2 else [other, ours]
            measured = {arm: pace(arm(corpus, batch_size, number), count) for arm in arms}
            paces[number].append((measured[ours], measured[other]))
    return {
        number: Rates(
            samples=batch_size * statistics.median(own.clock for own, _ in pairs),
            clock=_ratio([own.clock / other.clock for own, other in pairs]),
            cpu=_ratio([own.cpu / other.cpu for own, other in pairs]),
        )
        for number, pairs in paces.items()
    }


def _ratio(ratios: Sequence[float]) -> Ratio:
    return Ratio(median=statistics.median(ratios), low=min(ratios), high=max(ratios))


@dataclass(frozen=True, kw_only=True)
class LongRun:
    """One epoch over many shards.

    Attributes:
        first_batch: Seconds from the datamodule to the first batch.
        resumed: The same, after a resume at 90 % of the epoch, with indexes beside the shards.
        sought: The same without indexes.
        slope: Growth of the resident memory in the second half of the epoch, MiB for 100,000
            samples; None where it cannot be read.
    """

    first_batch: float
    resumed: float
    sought: float
    slope: float | None


def long_run(corpus: Corpus, batch_size: int) -> LongRun:
    """Train nothing for 90 % of an epoch; measure its beginning, its memory and a resume."""
    data = corpus.module(batch_size)
    begin = time.perf_counter()
    batches = iter(data.train_dataloader())
    next(batches)
    first_batch = time.perf_counter() - begin
    memory = []
    steps = len(data.train_dataloader()) * 9 // 10
    for step in range(1, steps):
        next(batches)
        if step >= steps // 2 and step % 10 == 0:
            memory.append((step * batch_size, resident_mib()))
    state = data.state_dict()
    expected = [document.key for document in next(batches).documents]
    seconds = []
    for has_index in (False, True):
        for shard in corpus.shards:
            if has_index:
                write_index(shard)
            os.utime(shard)  # otherwise this process knows where its samples are
        begin = time.perf_counter()
        data = corpus.module(batch_size)
        data.load_state_dict(state)
        loader = data.train_dataloader()
        loader.load_state_dict({"consumed": steps})
        keys = [document.key for document in next(iter(loader)).documents]
        seconds.append(time.perf_counter() - begin)
        assert keys == expected, "a resumed stream has other documents"
    return LongRun(
        first_batch=first_batch, sought=seconds[0], resumed=seconds[1], slope=_slope(memory)
    )


def resident_mib() -> float | None:
    """Return the resident memory of this process in MiB; None where it cannot be read."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize() / 2**20


def _slope(memory: Sequence[tuple[int, float | None]]) -> float | None:
    points = [(samples, mib) for samples, mib in memory if mib is not None]
    if len(points) < 2:
        return None
    samples, mib = zip(*points, strict=True)
    return float(np.polyfit(samples, mib, 1)[0] * 100_000)


def scenes_a_second(count: int) -> tuple[float, float]:
    """Return how many scenes are made and decoded, and JPEG files decoded, in a core-second."""
    side = 64
    world, decode = Scenes(ColouredShapes(6, 8, turned=True), side), PictureDecoder(image_size=side)
    read = chain.from_iterable(map(world.read, world.shards("train")))
    raws = (raw for raw in read if isinstance(raw, RawSample))
    decoder, file = world.decoder(decode), jpeg(np.random.default_rng(0), side)
    rates = []
    for once in (lambda: decoder(next(raws)), lambda: decode(file)):
        begin = time.process_time()
        for _ in range(count):
            once()
        rates.append(count / (time.process_time() - begin))
    return rates[0], rates[1]


def main(args: Sequence[str] | None = None) -> int:
    """Measure, and print what comes out beside what is aimed at."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the comparison")
    parser.add_argument("--side", type=int, default=256, help="of its pictures, pixels")
    parser.add_argument("--batch", type=int, default=32, help="samples in a batch")
    parser.add_argument("--batches", type=int, default=30, help="of an arm in a round")
    parser.add_argument("--shards", type=int, default=1000, help="of the long run, 100 samples")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args(args)
    if options.quick:
        options.rounds, options.side, options.batch, options.batches = 1, 32, 8, 2
        options.shards = 12
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="webdataset")
    with TemporaryDirectory() as folder:
        corpus = make(Path(folder) / "rates", 64, 4 if options.quick else 50, options.side)
        print(f"Pictures of {options.side} pixels, batches of {options.batch}")
        workers = (0,) if options.quick else (0, 1, 2)
        for name, other in others().items():
            found = compare(corpus, other, options.batch, options.batches, options.rounds, workers)
            for number, rates in found.items():
                print(
                    f"  {number} workers: {rates.samples:.0f} samples/s; of {name}'s rate "
                    f"{rates.clock} by the clock, {rates.cpu} by CPU time "
                    f"(goal: {GOALS[name]} at least)"
                )
        small = make(Path(folder) / "long", options.shards, 10 if options.quick else 100, 32)
        run = long_run(small, options.batch)
    print(f"{options.shards} shards, {small.num_samples} samples of 32 pixels, no workers")
    print(f"  first batch after {run.first_batch:.2f} s (goal: below {SECONDS} s)")
    print(f"  resumed at 90 % with indexes: {run.resumed:.2f} s (goal: below {SECONDS} s)")
    print(f"  resumed without: {run.sought:.2f} s")
    if run.slope is not None:
        print(f"  memory grows by {run.slope:.1f} MiB in 100,000 samples")
    made, decoded = scenes_a_second(20 if options.quick else 2000)
    print("scenes of 64 pixels, made and decoded, in a second of CPU time")
    print(f"  {made:.0f} samples; JPEG files of that size decoded: {decoded:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
