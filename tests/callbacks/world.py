"""A small world with known answers: a datamodule of drawn shapes and modules that recall them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks.easy_vqa.judge import COLOURS, SHAPES
from pretzel.media import Pictures
from pretzel.rng import stream
from pretzel.sequence.document import DocumentBatch, caption_document

RGB = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
    "yellow": (255, 255, 0),
}


def draw(colour: str, shape: str, size: int = 32, centre: tuple[int, int] = (15, 16)) -> Tensor:
    """Return one easy-VQA-like image in [-1, 1]: a shape of radius 8 on a pale ground."""
    rows = torch.arange(size)[:, None] - centre[0]
    columns = torch.arange(size)[None] - centre[1]
    inside = {
        "circle": rows**2 + columns**2 <= 64,
        "rectangle": (rows.abs() <= 5) & (columns.abs() <= 8),
        "triangle": (rows.abs() <= 8) & (columns.abs() * 2 <= rows + 8),
    }[shape]
    ground = torch.tensor([240.0, 235.0, 250.0])[:, None, None]
    ink = torch.tensor(RGB[colour], dtype=torch.float32)[:, None, None]
    return torch.where(inside, ink, ground) / 127.5 - 1


@dataclass(frozen=True, kw_only=True)
class Known:
    """A sample as a datamodule hands it out."""

    key: str
    image: Tensor
    caption: str
    questions: tuple[tuple[str, str], ...]
    truth: Mapping[str, object] = field(default_factory=dict)


def known_samples() -> list[Known]:
    """Return all 24 shapes, with three questions each, and one with a partial caption."""
    samples = []
    for i, colour in enumerate(COLOURS):
        for j, shape in enumerate(SHAPES):
            questions = (
                ("what color is the shape?", colour),
                ("is there a circle?", "yes" if shape == "circle" else "no"),
                ("what shape is present?", shape),
            )
            samples.append(
                Known(
                    key=f"{i}-{j}",
                    image=draw(colour, shape, centre=(12 + i, 13 + j)),
                    caption=f"a {colour} {shape}",
                    questions=questions,
                    truth={"colour": colour, "shape": shape},
                )
            )
    partial = Known(key="partial", image=draw("red", "circle"), caption="a red shape", questions=())
    return [samples[0], partial, *samples[1:]]


class KnownData(LightningDataModule):
    """Batches of the known samples for every stage."""

    def __init__(self, batch_size: int = 5, samples: Sequence[Known] | None = None) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.samples = known_samples() if samples is None else list(samples)

    def evaluation_samples(self, split: str = "test", limit: int | None = None) -> Iterator[Known]:
        return iter(self.samples[:limit])

    def _loader(self) -> DataLoader:
        def collate(samples: list[Known]) -> DocumentBatch:
            return DocumentBatch(
                documents=tuple(caption_document(s.caption, key=s.key) for s in samples),
                images=torch.stack([s.image for s in samples]),
            )

        # a plain list as data set: Lightning deals it out to ranks by itself
        return DataLoader(self.samples, batch_size=self.batch_size, collate_fn=collate)

    train_dataloader = val_dataloader = test_dataloader = _loader


class Recaller(LightningModule):
    """Generates the real image of each caption, and answers from the truth; or just noise.

    Args:
        noise: Generate noise instead, and answer nothing right.
        can_answer: What the property of this name says.
    """

    def __init__(self, noise: bool = False, can_answer: bool = True) -> None:
        super().__init__()
        self.seed = 0
        self.noise = noise
        self._can_answer = can_answer
        self.layer = torch.nn.Linear(3, 1)
        self.keys: list[tuple[int | str, ...]] = []
        self.asked: list[list[str]] = []
        self.modes: set[bool] = set()

    @property
    def medium(self) -> Pictures:
        return Pictures(32)

    @property
    def can_answer(self) -> bool:
        return self._can_answer

    def sample(self, prompts: list[str], *, stream_key: tuple[int | str, ...]) -> Tensor:
        self.keys.append(stream_key)
        self.modes.add(self.training)
        if self.noise:
            generator = stream(self.seed, "sample", *stream_key)
            return torch.rand(len(prompts), 3, 32, 32, generator=generator) * 2 - 1
        images = {s.caption: s.image for s in self.trainer.datamodule.samples}
        return torch.stack([images[prompt] for prompt in prompts])

    def answer(self, images: Tensor, questions: list[str], keys: list[str]) -> list[str]:
        self.asked.append(list(keys))
        self.modes.add(self.training)
        known = {s.key: s for s in self.trainer.datamodule.samples}
        assert all(torch.equal(im, known[k].image) for im, k in zip(images, keys, strict=True))
        truth = [dict(known[key].questions)[q] for q, key in zip(questions, keys, strict=True)]
        return ["maybe"] * len(truth) if self.noise else truth

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        return self.layer(batch.images.mean((2, 3))).square().mean()

    def validation_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Leave everything to the callbacks."""

    def test_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Leave everything to the callbacks."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(
    folder: Path, callbacks: Sequence[Callback], *, board: bool = False, **settings: object
) -> Trainer:
    """Return a quiet CPU Trainer that writes under ``folder``."""
    logger = TensorBoardLogger(folder, name="board") if board else False
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return Trainer(
        default_root_dir=folder, logger=logger, callbacks=list(callbacks), **(quiet | settings)
    )


def evaluate(
    folder: Path, module: LightningModule, callbacks: Sequence[Callback], **settings: object
) -> dict[str, float]:
    """Return what testing logs, by name without the stage."""
    trainer = make_trainer(folder, callbacks, **settings)
    trainer.test(module, datamodule=KnownData(), verbose=False)
    values = {
        name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()
    }
    named = [names_at_test(callback) for callback in callbacks]
    assert None in named or values.keys() <= set().union(*named)
    return values


def names_at_test(callback: Callback) -> set[str] | None:
    """Return the names that a callback says it logs at test, without the stage."""
    said = callback.metric_names()
    if said is None:
        return None
    return {name.removeprefix("test/") for name in said if name.startswith("test/")}
