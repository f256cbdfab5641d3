"""Cost of a training step with several documents in a row, and with one a row.

    python -m benchmarks.packing            # the shipped model on easy-VQA
    python -m benchmarks.packing --quick    # seconds: does everything compute what it should?

One step is the joint loss of a batch and its gradients. All arms run in one process, in turn, on
one thread, over the same documents and weights; a ratio is the median over rounds of the times of
one round, smallest and largest in brackets. Documents of many lengths are captions, questions,
texts without an image and conversations of three images; those of about one length are captions
alone, where there is nothing to gain.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks import measure
from benchmarks.measure import Task
from datamodules import (
    CaptionQuestions,
    Captions,
    Conversations,
    EasyVQA,
    Mixture,
    Questions,
    Recipe,
    WebDatasetDataModule,
)
from pretzel.model import Pretzel
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import read
from pretzel.sequence.document import DocumentBatch
from pretzel.training.module import PretzelModule
from pretzel.typing import Tensor

BASE = Path(__file__).parents[1] / "ablations" / "base" / "easy_vqa.yaml"


def recipes() -> Mapping[str, Recipe]:
    """Return what documents are made of."""
    return {
        "many lengths": Mixture(
            [
                Captions(),
                Questions(2),
                CaptionQuestions(2),
                Conversations(num_turns=3, max_questions=4),
            ],
            [0.35, 0.2, 0.3, 0.15],
        ),
        "one length": Captions(),
    }


def batch(recipe: Recipe, size: int) -> DocumentBatch:
    """Return documents of easy-VQA with their images."""
    data = WebDatasetDataModule(EasyVQA(), recipe, 64, batch_size=size, steps_per_epoch=1)
    return next(iter(data.train_dataloader()))


def model() -> Pretzel:
    """Return the shipped configuration's model, its weights moved from where they start."""
    cli = ParseOnlyCLI()
    torch.manual_seed(0)
    built = cli.build_model("fit", cli.parse("fit", read(BASE)))
    assert isinstance(built, PretzelModule)
    assert isinstance(built.pretzel, Pretzel)
    with torch.no_grad():
        for parameter in built.pretzel.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return built.pretzel


def task(name: str, trained: Pretzel, batch: DocumentBatch, lengths: Sequence[int]) -> Task:
    """Return a training step with rows of several lengths, and with one document a row.

    Args:
        name: Of the task.
        trained: The model.
        batch: Its batch.
        lengths: Positions of a row that holds several documents.
    """
    x = trained.encode(batch.images, trained.noise(len(batch.images), "benchmark"))

    def step(pack_length: int | None) -> Tensor:
        trained.pack_length = pack_length
        trained.zero_grad()
        scores = trained.score(batch.documents, x)
        flow = -scores.log_prob.sum() / (trained.latent.dims * max(len(x), 1))
        text = scores.token_nll.sum() / max(len(scores.token_nll), 1)
        loss = flow + text
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def arm(length: int) -> Callable[[], Tensor]:
        return lambda: step(length)

    arms: dict[str, Callable[[], Tensor]] = {"padded": lambda: step(None)}
    arms |= {f"rows of {length}": arm(length) for length in lengths}
    return Task(name=name, arms=arms, equal=dict.fromkeys([*arms][1:], 1e-4))


def shape(trained: Pretzel, batch: DocumentBatch, pack_length: int | None) -> str:
    """Return rows, their length, and how much of them is not padding."""
    trained.pack_length = pack_length
    valid = trained.pack(batch.documents).is_valid
    return f"{valid.shape[0]} x {valid.shape[1]}, {valid.float().mean():.2f} full"


def main(args: Sequence[str] | None = None) -> int:
    """Measure, and print the gain."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count")
    parser.add_argument("--batch", type=int, default=32, help="documents in a batch")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 384], help="of rows")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    size, rounds = (6, 1) if options.quick else (options.batch, options.rounds)
    trained = model()
    print(f"{size} documents a step, 64 positions an image; medians over {rounds} rounds")
    for name, recipe in recipes().items():
        documents = batch(recipe, size)
        print(f"{name}: padded {shape(trained, documents, None)}")
        rows = measure.run(
            task(name, trained, documents, options.lengths), rounds, torch.device("cpu")
        )
        for length, row in zip(options.lengths, rows, strict=True):
            print(
                f"  padded beside {row.other} ({shape(trained, documents, length)}): {row.cpu} "
                f"times the CPU time, {row.seconds * 1e3:.0f} ms in place of "
                f"{row.other_seconds * 1e3:.0f} ms"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
