"""What a step of stage S1 costs with the text states of the VLM read back, and with the VLM run.

    python -m benchmarks.text_states           # the shipped stage; then a larger random Llama
    python -m benchmarks.text_states --quick   # seconds: does everything compute what it should?

One step is the loss of a batch of captions with images, and its gradients. All arms run in one
process, in turn, on one thread, over the same weights; a ratio is the median over rounds of the
times of one round, smallest and largest in brackets. *Read* has every caption on disk, *first* has
none and writes them (captions run through the VLM once, without their images).
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
from benchmarks.measure import Row, Task
from pretzel.cli import ParserOnly
from pretzel.config.overlay import Config, fold, override, read
from pretzel.config.yamlfile import Source
from pretzel.model import Pretzel
from pretzel.module import PretzelModule
from pretzel.sequence import DocumentBatch, caption_document
from pretzel.typing import Tensor
from pretzel.vlm.huggingface import HuggingFaceVLM
from pretzel.vlm.text_states import TextStates

ABLATIONS = Path(__file__).parents[1] / "ablations"
FILES = (ABLATIONS / "base" / "easy_vqa.yaml", ABLATIONS / "stages" / "s1.yaml")


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


def module(vlm: dict[str, Any] | None = None) -> PretzelModule:
    """Return the shipped stage S1.

    Args:
        vlm: Another vision-language model, as YAML would name it.
    """
    config: Config = fold([read(file) for file in FILES])
    changes: dict[str, Any] = {"model.text_states": None}
    if vlm is not None:
        changes["model.pretzel.vlm"] = vlm
    for key, value in changes.items():
        config = override(config, key, value, Source(name="benchmark"))
    cli = ParserOnly()
    torch.manual_seed(0)
    built = cli.build_model("fit", cli.parse("fit", config))
    assert isinstance(built, PretzelModule)
    return built


def batch(size: int, words: int) -> DocumentBatch:
    """Return captions of ``words`` words, all different, with images."""
    documents = tuple(
        caption_document(" ".join(f"{number}-{word}" for word in range(words)), key=str(number))
        for number in range(size)
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, 3, 64, 64, generator=generator) * 2 - 1
    return DocumentBatch(documents=documents, images=images)


def task(name: str, trained: PretzelModule, given: DocumentBatch, folder: Path) -> Task:
    """Return a step with states read back, computed for the first time, and without this option."""
    model = trained.pretzel
    x = model.encode(given.images, model.noise(len(given.images), "benchmark"))

    def step() -> Tensor:
        model.zero_grad()
        loss = -model.score(given.documents, x).log_prob.mean() / model.latent.dims
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def with_states(states: TextStates) -> Tensor:
        with states.serving(model):
            return step()

    known = TextStates(folder / "known")
    known.start(model)
    with_states(known)
    known.finish()
    numbers = itertools.count()

    def first() -> Tensor:
        states = TextStates(folder / str(next(numbers)))
        states.start(model)
        loss = with_states(states)
        states.finish()
        return loss

    arms: dict[str, Callable[[], Tensor]] = {
        "read": lambda: with_states(known), "first": first, "model": step,
    }  # fmt: skip
    return Task(name=name, arms=arms, equal={"first": 1e-6, "model": 1e-6})


def main(args: Sequence[str] | None = None) -> int:
    """Measure, and print the saving."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="rounds that count")
    parser.add_argument("--batch", type=int, default=16, help="captions in a batch")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    given = parser.parse_args(args)
    torch.set_num_threads(1)
    size, rounds = (4, 1) if given.quick else (given.batch, given.rounds)
    width, layers = (64, 2) if given.quick else (576, 16)
    path = f"{WordsAsTokens.__module__}.{WordsAsTokens.__qualname__}"
    llama = {"class_path": path, "init_args": {"width": width, "num_layers": layers}}
    print(f"{size} captions a step, 64 image positions each; medians over {rounds} rounds")
    for name, vlm, words in (("TinyVLM", None, 4), ("Llama", llama, 24)):
        trained = module(vlm)
        assert isinstance(trained.pretzel, Pretzel)
        parameters = sum(p.numel() for p in trained.pretzel.vlm.parameters()) / 1e6
        about = f"{name} ({parameters:.1f} M weights), {words} words"
        with tempfile.TemporaryDirectory() as folder:
            found = measure.run(
                task(about, trained, batch(size, words), Path(folder)), rounds, torch.device("cpu")
            )
        for row in found:
            print(_line(row))
    return 0


def _line(row: Row) -> str:
    seconds = f"{row.seconds * 1e3:.0f} ms in place of {row.other_seconds * 1e3:.0f} ms"
    return f"{row.task}: {row.arm} beside {row.other}: {row.cpu} of the CPU time, {seconds}"


if __name__ == "__main__":
    sys.exit(main())
