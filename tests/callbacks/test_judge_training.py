"""The recipe of the judge learns from real images, ignores unknown labels and repeats itself."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from world import draw, make_trainer

from callbacks import JudgeTraining
from callbacks.easy_vqa.judge import load_judge
from callbacks.easy_vqa.judge_training import IGNORED, labels
from datamodules import Captions, EasyVQA, WebDatasetDataModule
from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch, caption_document, question_document

RECIPE = Path(__file__).parents[2] / "ablations" / "stages" / "judge.yaml"


def batch(captions: list[str]) -> DocumentBatch:
    documents = tuple(caption_document(caption, key=caption) for caption in captions)
    images = torch.stack([draw("red", "circle")] * len(captions))
    return DocumentBatch(documents=documents, images=images)


def real_data() -> WebDatasetDataModule:
    settings = yaml.safe_load(RECIPE.read_text())["data"]["init_args"]
    return WebDatasetDataModule(
        **settings
        | {
            "source": EasyVQA(),
            "recipe": Captions(drop=0.0),
            "num_val_samples": 100,
            "batch_size": 32,
            "shuffle_buffer": 200,
        },
    )


def train(folder: Path, steps: int) -> tuple[JudgeTraining, float]:
    torch.manual_seed(0)
    settings = yaml.safe_load(RECIPE.read_text())["model"]["init_args"]
    module = JudgeTraining(**settings | {"export_to": str(folder / "judge.safetensors")})
    trainer = make_trainer(folder, [], max_steps=steps, limit_val_batches=2)
    trainer.fit(module, datamodule=real_data())
    logged = set(trainer.callback_metrics)
    trainer.validate(module, datamodule=real_data(), verbose=False)
    assert logged | trainer.callback_metrics.keys() == module.metric_names()
    return module, float(trainer.callback_metrics["val/right"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JudgeTraining, float]:
    folder = tmp_path_factory.mktemp("judge")
    return folder, *train(folder, 30)


def test_learns_and_exports_a_judge_that_loads(
    trained: tuple[Path, JudgeTraining, float],
) -> None:
    folder, module, right = trained
    assert right > 0.15  # chance is 0.042
    judge = load_judge(folder / "judge.safetensors")
    images = torch.stack([draw("blue", "triangle"), draw("red", "circle")])
    with torch.no_grad():
        for actual, exact in zip(judge(images), module.judge(images), strict=True):
            torch.testing.assert_close(actual, exact, atol=2e-2, rtol=0)


def test_repeats_itself_bit_for_bit(tmp_path: Path) -> None:
    (a, _), (b, _) = train(tmp_path, 3), train(tmp_path, 3)
    state: dict[str, Tensor] = b.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in a.state_dict().items())


def test_partial_captions_are_masked() -> None:
    colour, shape = labels(batch(["a red circle", "a blue shape", "a triangle", "a shape"]))
    assert colour.tolist() == [0, 2, IGNORED, IGNORED]
    assert shape.tolist() == [0, IGNORED, 2, IGNORED]


def test_unknown_labels_give_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    module = JudgeTraining(noise=0.0, blur=0.0)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    module.training_step(batch(["a red shape", "a shape"]), 0).backward()
    assert module.judge.shape.weight.grad is not None
    assert not module.judge.shape.weight.grad.any()
    assert module.judge.colour.weight.grad is not None
    assert module.judge.colour.weight.grad.any()


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"blur must lie in \[0, 1\], got 2.0"):
        JudgeTraining(blur=2.0)
    question = question_document([("is it red?", "yes")], key="q1")
    wrong = DocumentBatch(documents=(question,), images=draw("red", "circle")[None])
    with pytest.raises(UserError, match="'q1' has 2 texts and 1 images"):
        labels(wrong)
