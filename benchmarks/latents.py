"""Latent spaces: images a second, what computing latents once saves, training steps of an FAE.

    python -m benchmarks.latents           # the shipped configurations, 64 px
    python -m benchmarks.latents --quick   # one round, few images

All arms run in one process, in turn, on one thread; a ratio is the median over rounds of the times
of one round, smallest and largest in brackets. A training step is a batch from the loader, its
loss and the gradients; *latents* reads what ``pretzel data embed`` has written, *pictures* decodes
and encodes. Steps of the FAE's stages have cached features, and leave the optimizer out; *bare*,
their floor, is what trains in them forward and backward, on features that are there.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks import features, measure
from benchmarks.measure import Comparison, Task
from datamodules.tools.embed import embed
from pretzel.latent import FAE, Autoencoder, LatentSpace, LinearLatents, Pixels
from pretzel.latent.linear import save_linear
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import fold, override, read
from pretzel.runs.config.yaml_lines import Source
from pretzel.sequence.document import DocumentBatch
from pretzel.training import FeatureAutoencoderTraining, PixelDecoderTraining
from pretzel.typing import Tensor

LATENTS = Path(__file__).parents[1] / "ablations" / "latents"
CPU = torch.device("cpu")
PATCH = 8


def stage(name: str, changes: Mapping[str, Any]) -> LightningModule:
    """Return a shipped stage of the FAE.

    Args:
        name: Of its file.
        changes: Values of arguments of the stage.
    """
    config = fold([read(LATENTS / f"{name}.yaml")])
    for key, value in changes.items():
        config = override(config, f"model.{key}", value, Source(name="benchmark"))
    cli = ParseOnlyCLI()
    return cli.build_model("fit", cli.parse("fit", config))


class _InAFit(Callback):
    """Times a task where a step of training would be."""

    def __init__(self, task: Callable[[LightningModule, DocumentBatch], Task], rounds: int) -> None:
        self._task = task
        self._rounds = rounds
        self.rows: Sequence[Comparison] = ()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: DocumentBatch, batch_idx: int
    ) -> None:
        self.rows = measure.run(self._task(pl_module, batch), self._rounds, CPU)
        pl_module.zero_grad()


def timed_in_a_fit(
    module: LightningModule,
    task: Callable[[LightningModule, DocumentBatch], Task],
    rounds: int,
) -> Sequence[Comparison]:
    """Return what a task takes, and train one step."""
    timer = _InAFit(task, rounds)
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        callbacks=[timer],
        limit_val_batches=0,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, features.easy_vqa())
    return timer.rows


def against_the_floor(
    name: str, module: LightningModule, batch: DocumentBatch, bare: Callable[[], Tensor]
) -> Task:
    """Return the gradients of a stage's step beside those of its network alone."""

    def step(loss: Callable[[], Any]) -> Tensor:
        module.zero_grad()
        value: Tensor = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    arms: dict[str, Callable[[], Tensor]] = {
        "step": lambda: step(lambda: module.training_step(batch, 0)),
        "bare": lambda: step(bare),
    }
    return Task(name=name, arms=arms, turns=3)


def feature_step(module: LightningModule, batch: DocumentBatch) -> Task:
    """Return a step of the first stage."""
    assert isinstance(module, FeatureAutoencoderTraining)
    network = module.network
    ready = network.standardise(network.encoder(batch.images))

    def bare() -> Tensor:
        decoded = network.feature_decoder(network.bottleneck(ready)[0])
        loss: Tensor = (decoded - ready).square().mean()
        return loss

    return against_the_floor("features from latents", module, batch, bare)


def pixel_step(module: LightningModule, batch: DocumentBatch) -> Task:
    """Return a step of the second stage."""
    assert isinstance(module, PixelDecoderTraining)
    network = module.network
    ready = network.standardise(network.encoder(batch.images))

    def bare() -> Tensor:
        assert network.pixel_decoder is not None
        error: Tensor = network.pixel_decoder(ready) - batch.images
        return error.abs().mean() + error.square().mean()

    name = "true" if module.feature_share else "reconstructed"
    return against_the_floor(f"pixels from {name} features", module, batch, bare)


def spaces(folder: Path) -> dict[str, LatentSpace]:
    """Return the latent spaces; the linear one's file is written to a folder."""
    size, width = features.SIDE, 3 * PATCH**2
    save_linear(
        folder / "linear.safetensors",
        mean=torch.zeros(width),
        covariance=torch.diag(torch.linspace(1, 2, width)),
        channels=16,
        image_size=size,
        patch_size=PATCH,
    )
    return {
        "FAE": FAE(noise=0.3),
        "Autoencoder": Autoencoder(patch_size=2, noise=0.2),
        "LinearLatents": LinearLatents(str(folder / "linear.safetensors"), noise=0.2),
        "Pixels": Pixels(size, PATCH, noise=0.05),
    }


def coding(made: Mapping[str, LatentSpace], images: Tensor) -> Iterator[Task]:
    """Return the encoding and the decoding of a batch in every space."""
    codes = {name: space.encode(images) for name, space in made.items()}

    @torch.no_grad()
    def run(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        return function(inputs)

    encode = {name: partial(run, space.encode, images) for name, space in made.items()}
    decode = {name: partial(run, space.decode, codes[name]) for name, space in made.items()}
    yield Task(name="encode", arms=encode, turns=3)
    yield Task(name="decode", arms=decode, turns=3)


def in_yaml(name: str, folder: Path) -> dict[str, Any]:
    """Return a space of :func:`spaces` that has an encoder, as YAML would name it."""
    arguments: dict[str, dict[str, Any]] = {
        "FAE": {"noise": 0.3},
        "Autoencoder": {"noise": 0.2, "patch_size": 2},
        "LinearLatents": {"noise": 0.2, "weights": str(folder / "linear.safetensors")},
    }
    return {"class_path": f"pretzel.latent.{name}", "init_args": arguments[name]}


@contextlib.contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Keep what is embedded in a folder."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


def main(args: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as name, cache_in(Path(name) / "cache"):
        folder = Path(name)
        for row in stages(folder, rounds):
            print(_step(row), flush=True)
        data = features.jpegs(folder, (1 if options.quick else 4) * features.BATCH, features.SIDE)
        made = spaces(folder)
        images = next(iter(data().train_dataloader())).images
        for task in coding(made, images):
            for row in measure.run(task, rounds, CPU):
                print(_rate(row, len(images)), flush=True)
        for space in ("FAE",) if options.quick else ("FAE", "Autoencoder", "LinearLatents"):
            trained = features.module(in_yaml(space, folder))
            embed(trained, data())
            task = features.steps(f"a step on {space}", trained, data)
            for row in measure.run(task, rounds, CPU):
                print(_step(row), flush=True)
    return 0


def stages(folder: Path, rounds: int) -> Iterator[Comparison]:
    """Time the stages of the FAE; the first one's file is written to a folder."""
    first = str(folder / "features.safetensors")
    yield from timed_in_a_fit(stage("fae_features", {"export_to": first}), feature_step, rounds)
    for share in (1.0, 0.0):
        changes = {"features": first, "export_to": None, "feature_share": share}
        yield from timed_in_a_fit(stage("fae_pixels", changes), pixel_step, rounds)


def _rate(row: Comparison, count: int) -> str:
    rates = f"{count / row.seconds:.0f} images/s beside {count / row.other_seconds:.0f}"
    return f"{row.task}: {row.arm} beside {row.other}: {row.cpu} of the CPU time, {rates}"


def _step(row: Comparison) -> str:
    seconds = f"{row.seconds * 1e3:.0f} ms in place of {row.other_seconds * 1e3:.0f} ms"
    return f"{row.task}: {row.arm} beside {row.other}: {row.cpu} of the CPU time, {seconds}"


if __name__ == "__main__":
    sys.exit(main())
