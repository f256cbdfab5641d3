"""Time that latents computed once save: in a training step, and in reading training data.

    python -m benchmarks.features           # the base configuration; Stable Diffusion's encoder
    python -m benchmarks.features --quick   # seconds: does everything compute what it should?

All arms run in one process, in turn, on one thread; a ratio is the median over rounds of the times
of one round, smallest and largest in brackets. A step is a batch from the loader, its loss and the
gradients. *latents* reads what ``pretzel data embed`` has written, *pictures* decodes and encodes.
"""

import argparse
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import measure
from benchmarks.measure import Comparison, Task
from datamodules import Captions, EasyVQA, Shards, WebDatasetDataModule
from datamodules.tools.embed import embed
from pretzel.latent import DiffusersVAE
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import Config, fold, override, read
from pretzel.runs.config.yaml_lines import Source
from pretzel.sequence.document import DocumentBatch
from pretzel.training.latents import noised_latents
from pretzel.training.module import PretzelModule
from pretzel.typing import Tensor

BASE = Path(__file__).parents[1] / "ablations" / "base" / "easy_vqa.yaml"
SIDE = 64  # pixels in training steps
JPEG_SIDE = 256  # pixels of the pictures that are read alone
BATCH = 16
SMALL_WIDTHS = (8, 8, 8, 8)
WIDTHS = (128, 256, 512, 512)  # of Stable Diffusion's autoencoder
DataFactory = Callable[[], WebDatasetDataModule]


def module(latent: dict[str, Any] | None = None) -> PretzelModule:
    """Return the base configuration's module, from random weights, perhaps in another latent space.

    Args:
        latent: The latent space as YAML would name it.
    """
    config: Config = fold([read(BASE)])
    if latent is not None:
        config = override(config, "model.pretzel.latent", latent, Source(name="benchmark"))
    cli = ParseOnlyCLI()
    torch.manual_seed(0)
    built = cli.build_model("fit", cli.parse("fit", config))
    assert isinstance(built, PretzelModule)
    return built


def large_encoder(folder: Path, widths: Sequence[int], image_size: int) -> dict[str, Any]:
    """Write a random autoencoder of diffusers; return the latent space in YAML."""
    import diffusers

    torch.manual_seed(0)
    kind: Any = diffusers.AutoencoderKL
    kind(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=list(widths),
        norm_num_groups=min(widths[0], 32),
        layers_per_block=2,
    ).save_pretrained(folder)
    arguments = {"name": str(folder), "image_size": image_size}
    return {"class_path": "pretzel.latent.DiffusersVAE", "init_args": arguments}


def easy_vqa() -> WebDatasetDataModule:
    """Return the embedded data."""
    return WebDatasetDataModule(EasyVQA(), Captions(), SIDE, BATCH, 10**6, shuffle_buffer=64)


def jpegs(folder: Path, count: int, side: int) -> DataFactory:
    """Write JPEGs of smooth noise, a shard for each row of a batch; return what reads them."""
    numbers = np.random.default_rng(0)
    for row in range(BATCH):
        with tarfile.open(folder / f"{row}.tar", "w") as archive:
            for key in range(row, count, BATCH):
                coarse = Image.fromarray(numbers.integers(0, 256, (24, 24, 3), dtype=np.uint8))
                file = BytesIO()
                smooth = coarse.resize((side,) * 2, Image.Resampling.BICUBIC)
                smooth.save(file, "JPEG", quality=90)
                for name, content in ((f"{key}.jpg", file.getvalue()), (f"{key}.txt", b"noise")):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, BytesIO(content))
    source = Shards(str(folder / "*.tar"))
    return lambda: WebDatasetDataModule(
        source, Captions(), side, BATCH, 10**6, shuffle_buffer=BATCH
    )


def loaders(trained: PretzelModule, make: DataFactory) -> dict[str, Iterator[DocumentBatch]]:
    """Return batches without end, with and without latents."""
    with_latents, plain = make(), make()
    assert with_latents.read_latents(trained.pretzel.latent), "nothing was embedded"
    by_name = {"latents": with_latents, "pictures": plain}
    return {
        name: chain.from_iterable(repeat(data.train_dataloader())) for name, data in by_name.items()
    }


def steps(name: str, trained: PretzelModule, make: DataFactory) -> Task:
    """Return a training step with and without latents."""
    model = trained.pretzel
    batches = loaders(trained, make)

    def step(arm: str) -> Tensor:
        model.zero_grad()
        batch = next(batches[arm])
        noise = model.noise(batch.num_images, "benchmark")
        x = noised_latents(model, batch, noise, None)
        loss = -model.score(batch.documents, x).log_prob.mean() / model.latent.dims
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    arms = {arm: lambda arm=arm: step(arm) for arm in ("latents", "pictures")}
    return Task(name=name, arms=arms, equal={"pictures": 1e-4})


def reading(name: str, trained: PretzelModule, make: DataFactory) -> Task:
    """Return the reading of a batch: its latents, or its pictures decoded."""
    batches = loaders(trained, make)

    def read_batch(arm: str) -> Tensor:
        return torch.tensor(float(sum(next(batches[arm]).num_images for _ in range(4))))

    arms = {arm: lambda arm=arm: read_batch(arm) for arm in ("latents", "pictures")}
    return Task(name=name, arms=arms, equal={"pictures": 0.0}, goals={"pictures": 0.25})


def main(args: Sequence[str] | None = None) -> int:
    """Measure, and print the saving."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    rounds, widths = (1, SMALL_WIDTHS) if options.quick else (options.rounds, WIDTHS)
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        try:
            for task in _tasks(folder, widths, quick=options.quick):
                for row in measure.run(task, rounds, torch.device("cpu")):
                    print(_line(row), flush=True)
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before
    return 0


def _tasks(folder: Path, widths: Sequence[int], *, quick: bool) -> Iterator[Task]:
    small = module()
    if not quick:
        embed(small, easy_vqa())
        yield steps("a step of the base configuration", small, easy_vqa)
    count, side = (BATCH, SIDE) if quick else (4 * BATCH, JPEG_SIDE)
    make = jpegs(folder, 5 * count, side)  # shards of some size: to open one takes its time
    light = module(large_encoder(folder / "light", SMALL_WIDTHS, side))
    embed(light, make())
    yield reading(f"reading 64 JPEGs of {side} pixels", light, make)
    make = jpegs(folder, count, SIDE)
    large = module(large_encoder(folder / "large", widths, SIDE))
    embed(large, make())
    million = _encoder_weights(large) / 1e6
    yield steps(f"a step with an encoder of {million:.0f} M weights", large, make)


def _encoder_weights(trained: PretzelModule) -> int:
    latent = trained.pretzel.latent
    assert isinstance(latent, DiffusersVAE)
    return sum(parameter.numel() for parameter in latent._vae.encoder.parameters())


def _line(row: Comparison) -> str:
    seconds = f"{row.seconds * 1e3:.0f} ms in place of {row.other_seconds * 1e3:.0f} ms"
    goal = "" if row.goal is None else f" (goal {row.goal})"
    return f"{row.task}: {row.arm} beside {row.other}: {row.cpu} of the CPU time{goal}, {seconds}"


if __name__ == "__main__":
    sys.exit(main())
