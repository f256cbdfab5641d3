"""Training batches from one corpus: ours, webdataset's, MosaicML Streaming's, energon's."""

import importlib
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from datamodules import Captions, Shards, WebDatasetDataModule
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.tar_shard import RawSample, read_shard
from datamodules.reading.tar_writer import ShardWriter
from pretzel.media.integers import arrays_to_floats
from pretzel.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Tar shards of captioned JPEG files, made by :func:`make`.

    Attributes:
        pattern: The shards, with braces.
        shards: Their paths.
        per_shard: Samples of each.
        side: Of the pictures in pixels.
    """

    pattern: str
    shards: Sequence[Path]
    per_shard: int
    side: int

    @property
    def num_samples(self) -> int:
        """Number of samples of all shards."""
        return len(self.shards) * self.per_shard

    def module(self, batch_size: int, **changes: Any) -> WebDatasetDataModule:  # noqa: ANN401
        """Return the datamodule that trains on it: one epoch is one pass."""
        settings = {"steps_per_epoch": self.num_samples // batch_size, "upscale": True}
        return WebDatasetDataModule(
            Shards(self.pattern), Captions(), self.side, batch_size, **(settings | changes)
        )


def make(folder: Path, num_shards: int, per_shard: int, side: int) -> Corpus:
    """Write shards of smooth noise, at JPEG's usual bytes for a pixel."""
    numbers = np.random.default_rng(0)
    pictures = [jpeg(numbers, side) for _ in range(20)]
    folder.mkdir()
    shards = []
    for shard in range(num_shards):
        shards.append(folder / f"{shard:05d}.tar")
        with shards[-1].open("wb") as file:
            writer = ShardWriter(file)
            for number in range(per_shard):
                key, picture = f"{shard:05d}{number:04d}", pictures[number % len(pictures)]
                writer.write({f"{key}.jpg": picture, f"{key}.txt": f"picture {key}".encode()})
            writer.close()
    pattern = f"{folder}/{{00000..{num_shards - 1:05d}}}.tar"
    return Corpus(pattern=pattern, shards=shards, per_shard=per_shard, side=side)


def jpeg(numbers: np.random.Generator, side: int) -> bytes:
    """Return a picture of smooth noise as a JPEG file."""
    coarse = numbers.integers(0, 256, (max(2, side // 4), max(2, side // 4), 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((side * 5 // 4, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def plain(corpus: Corpus, batch_size: int, num_workers: int) -> Iterator[tuple[list[str], Tensor]]:
    """Yield batches of the plainest webdataset pipeline, without end."""
    decode = PictureDecoder(image_size=corpus.side, upscale=True)

    def decoded(sample: Mapping[str, bytes]) -> tuple[str, np.ndarray]:
        return sample["txt"].decode(), decode(sample["jpg"])

    def collated(samples: Sequence[tuple[str, np.ndarray]]) -> tuple[list[str], Tensor]:
        captions, pixels = zip(*samples, strict=True)
        return list(captions), arrays_to_floats(pixels)

    shards = [str(shard) for shard in corpus.shards]
    pipeline = webdataset.WebDataset(shards, resampled=True, shardshuffle=False)
    pipeline = pipeline.shuffle(2000, initial=2 * batch_size).map(decoded)
    pipeline = pipeline.batched(batch_size, collation_fn=collated)
    yield from webdataset.WebLoader(pipeline, batch_size=None, num_workers=num_workers)


def mosaic(corpus: Corpus, batch_size: int, num_workers: int) -> Iterator[tuple[list[str], Tensor]]:
    """Yield batches of MosaicML's Streaming, without end; its shards are written at first."""
    streaming = importlib.import_module("streaming")
    folder = corpus.shards[0].parent / "mosaic"
    if not folder.exists():
        columns = {"jpg": "bytes", "txt": "str"}
        with streaming.MDSWriter(out=str(folder), columns=columns) as writer:
            for shard in corpus.shards:
                for raw in read_shard(str(shard)):
                    assert isinstance(raw, RawSample)
                    texts = raw.members["txt"].decode()
                    writer.write({"jpg": raw.members["jpg"], "txt": texts})
    decode = PictureDecoder(image_size=corpus.side, upscale=True)

    def collated(samples: Sequence[Mapping[str, Any]]) -> tuple[list[str], Tensor]:
        pixels = [decode(sample["jpg"]) for sample in samples]
        return [sample["txt"] for sample in samples], arrays_to_floats(pixels)

    data = streaming.StreamingDataset(local=str(folder), batch_size=batch_size, shuffle=True)
    loader = DataLoader(data, batch_size, num_workers=num_workers, collate_fn=collated)
    while True:
        yield from loader


def energon(corpus: Corpus, batch_size: int, num_workers: int) -> Iterator[object]:
    """Yield batches of megatron-energon, without end; its index is written at first."""
    module = importlib.import_module("megatron.energon")
    folder = corpus.shards[0].parent
    meta = folder / ".nv-meta"
    if not meta.exists():
        preparator = importlib.import_module("megatron.energon.flavors.webdataset.prepare")
        preparator.WebdatasetPreparator.prepare_dataset(
            folder,
            [shard.name for shard in corpus.shards],
            split_parts_ratio=[("train", 1.0)],
            workers=1,
        )
        (meta / "dataset.yaml").write_text(
            "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
        )
    decode = PictureDecoder(image_size=corpus.side, upscale=True)

    def cook(sample: Mapping[str, Any]) -> object:
        return module.CaptioningSample(
            **module.basic_sample_keys(sample),
            image=decode(sample["jpg"]),
            caption=sample["txt"].decode(),
        )

    def collated(_: object, samples: Sequence[Any]) -> tuple[list[str], Tensor]:
        pixels = [sample.image for sample in samples]
        return [sample.caption for sample in samples], arrays_to_floats(pixels)

    methods = {
        "cookers": [module.Cooker(module.stateless(cook))],
        "batch": module.stateless(collated),
    }
    encoder = type("Encoder", (module.DefaultTaskEncoder,), {"decoder": None} | methods)()
    data = module.get_train_dataset(
        folder,
        batch_size=batch_size,
        shuffle_buffer_size=2000,
        max_samples_per_sequence=None,
        worker_config=module.WorkerConfig.default_worker_config(num_workers),
        task_encoder=encoder,
    )
    yield from module.get_loader(data)


Arm = Callable[[Corpus, int, int], Iterator[object]]
"""Yields batches of a corpus, of a size, read by so many workers."""


def others() -> dict[str, Arm]:
    """Return what our stream is compared to."""
    optional = {"streaming": ("MosaicML Streaming", mosaic), "megatron": ("energon", energon)}
    found: dict[str, Arm] = {"webdataset": plain}
    found |= dict(arm for name, arm in optional.items() if importlib.util.find_spec(name))
    return found


def ours(corpus: Corpus, batch_size: int, num_workers: int) -> Iterator[object]:
    """Yield batches of our training stream, without end."""
    data = corpus.module(batch_size, num_workers=num_workers)
    loader = data.train_dataloader()
    while True:
        yield from loader
