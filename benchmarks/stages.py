"""Time that stages S1 and S2 save by skipping the parts that their loss does not depend on.

    python -m benchmarks.stages           # the shipped stages; then around a larger random Llama
    python -m benchmarks.stages --quick   # seconds: does everything compute what it should?

One step is the loss of a batch and its gradients. All arms run in one process, in turn, on one
thread, over the same weights; a ratio is the median over rounds of the times of one round, smallest
and largest in brackets.

S1, captions with images: *read* has the text states of every caption on disk, *first* has none and
writes them (captions run through the VLM once, without their images), *model* runs the VLM over
everything. S2, images with questions and answers: *text alone* leaves the deep stream out, *both
streams* runs it.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.measure import Comparison, Task
from pretzel.latent.generative_model import GenerativeModel, Scores
from pretzel.model import Pretzel
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import Config, fold, override, read
from pretzel.runs.config.yaml_lines import Source
from pretzel.sequence.document import DocumentBatch, caption_document, question_document
from pretzel.training.module import PretzelModule
from pretzel.training.text_states import TextStates
from pretzel.typing import Tensor
from pretzel.vlm.huggingface import HuggingFaceVLM

ABLATIONS = Path(__file__).parents[1] / "ablations"
QUESTIONS = 4  # about each image, as in the shipped stage


class WordsAsTokens(HuggingFaceVLM):
    """A random language model, whose tokens are numbers of words.

    Args:
        width: Hidden size; heads have 64 channels.
        num_layers: Decoder layers.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        llama = {
            "model_type": "llama",
            "vocab_size": 4096,
            "hidden_size": width,
            "intermediate_size": 8 * width // 3,
            "num_hidden_layers": num_layers,
            "num_attention_heads": width // 64,
        }
        super().__init__(config=llama)

    def encode_text(self, text: str) -> list[int]:
        """Return a number for each word."""
        return [16 + sum(word.encode()) % 4000 for word in text.split()]


def module(stage: str, vlm: dict[str, Any] | None = None) -> PretzelModule:
    """Return a shipped stage, which starts from random weights.

    Args:
        stage: ``s1`` or ``s2``.
        vlm: Another vision-language model, as YAML would name it.
    """
    files = (ABLATIONS / "base" / "easy_vqa.yaml", ABLATIONS / "stages" / f"{stage}.yaml")
    config: Config = fold([read(file) for file in files])
    changes: dict[str, Any] = {"model.text_states": None, "model.weights": None}
    if vlm is not None:
        changes["model.pretzel.vlm"] = vlm
    for key, value in changes.items():
        config = override(config, key, value, Source(name="benchmark"))
    cli = ParseOnlyCLI()
    torch.manual_seed(0)
    built = cli.build_model("fit", cli.parse("fit", config))
    assert isinstance(built, PretzelModule)
    return built


def _words(count: int, number: int) -> str:
    return " ".join(f"{number}-{word}" for word in range(count))


def captions(size: int, words: int) -> DocumentBatch:
    """Return captions of ``words`` words, all different, with images."""
    texts = (_words(words, number) for number in range(size))
    documents = tuple(caption_document(text, key=text) for text in texts)
    return DocumentBatch(documents=documents, images=_images(size))


def questions(size: int, words: int) -> DocumentBatch:
    """Return images with questions of ``words`` words and answers of one."""
    pairs = [(_words(words, number), "yes") for number in range(QUESTIONS)]
    documents = tuple(question_document(pairs, key=str(number)) for number in range(size))
    return DocumentBatch(documents=documents, images=_images(size))


def _images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 64, 64, generator=generator) * 2 - 1


def _latents(model: GenerativeModel, batch: DocumentBatch) -> Tensor:
    return model.encode(batch.images, model.noise(len(batch.images), "benchmark"))


def second_stage(name: str, trained: PretzelModule, batch: DocumentBatch) -> Task:
    """Return a step of S2 without and with the deep stream."""
    model = trained.pretzel
    assert isinstance(model, Pretzel)
    x = _latents(model, batch)

    def step(score: Callable[..., Scores]) -> Tensor:
        model.zero_grad()
        loss = score(batch.documents, x).token_nll.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    arms: dict[str, Callable[[], Tensor]] = {
        "text alone": lambda: step(model.score_text), "both streams": lambda: step(model.score),
    }  # fmt: skip
    return Task(name=name, arms=arms, equal={"both streams": 0.0})


def first_stage(name: str, trained: PretzelModule, batch: DocumentBatch, folder: Path) -> Task:
    """Return a step of S1 with states read back, computed anew, and with the model run."""
    model = trained.pretzel
    x = _latents(model, batch)

    def step() -> Tensor:
        model.zero_grad()
        loss = -model.score(batch.documents, x).log_prob.mean() / model.latent.dims
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def with_states(states: TextStates) -> Tensor:
        with states.serving(model):
            return step()

    states = TextStates(folder / "known")
    states.start(model)
    with_states(states)
    states.finish()
    numbers = itertools.count()

    def first() -> Tensor:
        states = TextStates(folder / str(next(numbers)))
        states.start(model)
        loss = with_states(states)
        states.finish()
        return loss

    arms: dict[str, Callable[[], Tensor]] = {
        "read": lambda: with_states(states), "first": first, "model": step,
    }  # fmt: skip
    return Task(name=name, arms=arms, equal={"first": 1e-6, "model": 1e-6})


def main(args: Sequence[str] | None = None) -> int:
    """Measure, and print the saving."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="rounds that count")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    size, rounds = (4, 1) if options.quick else (options.batch, options.rounds)
    width, layers = (64, 2) if options.quick else (576, 16)
    path = f"{WordsAsTokens.__module__}.{WordsAsTokens.__qualname__}"
    llama = {"class_path": path, "init_args": {"width": width, "num_layers": layers}}
    print(f"{size} images of 64 positions a step; medians over {rounds} rounds")
    for name, vlm, words in (("TinyVLM", None, 4), ("Llama", llama, 24)):
        first, second = module("s1", vlm), module("s2", vlm)
        assert isinstance(first.pretzel, Pretzel)
        parameters = sum(p.numel() for p in first.pretzel.vlm.parameters()) / 1e6
        about = f"{name} ({parameters:.1f} M weights)"
        with tempfile.TemporaryDirectory() as folder:
            tasks = [
                first_stage(f"S1, {about}", first, captions(size, words), Path(folder)),
                second_stage(f"S2, {about}", second, questions(size, words)),
            ]
            for task in tasks:
                for row in measure.run(task, rounds, torch.device("cpu")):
                    print(_line(row))
    return 0


def _line(row: Comparison) -> str:
    seconds = f"{row.seconds * 1e3:.0f} ms in place of {row.other_seconds * 1e3:.0f} ms"
    return f"{row.task}: {row.arm} beside {row.other}: {row.cpu} of the CPU time, {seconds}"


if __name__ == "__main__":
    sys.exit(main())
