"""A source of small pictures in memory, to pack, to break and to interrupt."""

import numpy as np
from noise_images import noise_png

from datamodules import DataSource
from datamodules.reading.tar_shard import RawSample


class Noise(DataSource):
    """Two training shards of 20 pictures, one of 5 for validation; sample ``bad`` is broken."""

    def __init__(self, stop=None, broken=()):
        rng = np.random.default_rng(0)
        self.pictures = [noise_png(rng, 8) for _ in range(20)]
        self.stop, self.broken = stop, broken
        self.count = 0

    def shards(self, split):
        return {"train": ("a", "b"), "val": ("v",), "test": ()}[split]

    def num_samples(self, split):
        return None

    def read(self, shard, first=0, step=1):
        for number in range(first, 5 if shard == "v" else 20, step):
            self.count += 1
            if self.stop is not None and self.count > 27:
                self.stop()
            key = f"{shard}/{number:02d}"
            picture = b"<html>" if key in self.broken else self.pictures[number]
            members = {"png": picture, "txt": f"picture {key}".encode()}
            yield RawSample(shard=shard, key=key, members=members)


class TrainOnly(Noise):
    """The training samples of the other."""

    def shards(self, split):
        return super().shards(split) if split == "train" else ()


def interrupt():
    """Do what Ctrl-C does, as ``stop`` of a source."""
    raise KeyboardInterrupt
