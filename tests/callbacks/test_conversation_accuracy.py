"""Conversations of several images, held in a batch and judged turn by turn."""

from functools import partial
from pathlib import Path

import pytest
import torch
from painted import forced
from PIL import Image as PILImage
from test_likelihood import Dense
from test_own_images import ASKED, Keep, perturbed, results, small
from tiny import tiny_module
from torch import Tensor
from world import Known, KnownData, Recaller, draw, known_samples, make_trainer, names_at_test

from callbacks import ConversationAccuracy
from callbacks.easy_vqa.conversation_accuracy import JudgedTurn, turn_values
from callbacks.easy_vqa.judge import Appearance
from callbacks.easy_vqa.judged_images import begin_conversations
from pretzel.errors import UserError
from pretzel.generation.conversation import Conversation
from pretzel.generation.conversation_batch import conversations_with
from pretzel.interleave import Stacked, TextPrefix
from pretzel.interleave.tiled import Tiled
from pretzel.interleave.vision_input import LatentInput
from pretzel.media import Pictures
from pretzel.sampling.denoisers import ScoreDenoiser
from pretzel.vlm.tiny import TinyVLM

TOLD = [["a red circle", "a blue shape"], ["a teal triangle", "a circle"], ["red", "a circle"]]
KEYS = ["a", "b", "c"]


class RedCircle(Stacked):
    """Answers ``red``, then ``circle``, then the same again."""

    step = 0

    def logits(self, text: Tensor, vlm: TinyVLM) -> Tensor:
        word = ("red", "", "circle", "")[self.step % 4]
        self.step += 1
        says = vlm.encode_text(word)[0] if word else vlm.special.end_of_text
        return torch.nn.functional.one_hot(torch.tensor([says] * len(text)), 512).float()


def test_known_pictures_and_known_answers_give_known_numbers(tmp_path: Path) -> None:
    captions = ["a red circle", "a blue circle", "a shape", "a red triangle", "a teal circle"]
    samples = [
        Known(key=str(i), image=draw("black", "triangle"), caption=caption, questions=())
        for i, caption in enumerate(captions)
    ]
    painted = [
        *[("red", "circle"), ("blue", "circle"), ("red", "circle")],  # a red triangle, the last
        *[("red", "circle"), ("teal", "circle"), ("red", "circle")],  # ... the first
        ("teal", "circle"),
        ("green", "rectangle"),  # a blue circle
    ]
    module = forced([draw(*look) for look in painted], RedCircle)
    metric = ConversationAccuracy(batch_size=3)
    found = results(tmp_path, module, metric, KnownData(samples=samples))
    assert found.keys() == names_at_test(metric)
    assert metric.facts.keys() == {f"test/{name}" for name in found if not name.endswith("_n")}
    assert all(own["n"] == 4 and own["extractor"] for own in metric.facts.values())
    assert found == pytest.approx(
        {
            "conversations_n": 4,
            "turn1_right": 3 / 4,
            "turn1_vqa": 6 / 8,
            "turn2_right": 2 / 4,
            "turn2_vqa": 5 / 8,
            # where a red circle follows a red circle that was to be a triangle it is no copy
            "turn2_copied": 1 / 3,
        }
    )
    assert module.denoiser.painted == []


def test_nothing_that_should_not_be_copied_has_no_value() -> None:
    red, blue = Appearance("red", "circle"), Appearance("blue", "circle")
    turns = [
        JudgedTurn(wanted=red, seen=blue, answers=blue),
        JudgedTurn(wanted=blue, seen=blue, answers=("blue", "rectangle")),
    ]
    assert turn_values([turns]) == {
        "conversations_n": 1,
        "turn1_right": 0,
        "turn1_vqa": 1,
        "turn2_right": 1,
        "turn2_vqa": 0.5,
    }


@pytest.mark.parametrize(
    "interleaving",
    [Stacked, partial(Stacked, vision_input=LatentInput()), partial(Tiled, word="VVVVF")],
)
def test_batches_equal_conversations_one_by_one(interleaving) -> None:
    module = perturbed(interleaving, denoiser=ScoreDenoiser())
    batch = begin_conversations(module, TOLD, KEYS)
    turns = []
    for t in range(len(TOLD[0])):
        batch.say([captions[t] for captions in TOLD])
        pixels, answers = batch.generate(), []
        for question in ASKED:
            batch.say([question] * len(KEYS))
            answers.append(batch.answer(max_tokens=3))
        turns.append((pixels, answers))
    for i, (key, captions) in enumerate(zip(KEYS, TOLD, strict=True)):
        talk = Conversation(conversations_with(module, [key], max_length=128))
        for t, caption in enumerate(captions):
            talk.say(caption)
            pixels, answers = turns[t]
            expected = Pictures(32).outputs(pixels[i : i + 1])[0]
            assert talk.generate().tobytes() == expected.tobytes()
            for question, texts in zip(ASKED, answers, strict=True):
                talk.say(question)
                assert talk.answer(max_tokens=3) == texts[i]
    assert len({text for _, answers in turns for texts in answers for text in texts}) > 1


def test_values_do_not_depend_on_batches_ranks_or_repetition(tmp_path: Path) -> None:
    data = small(known_samples())

    def metric(batch_size: int) -> ConversationAccuracy:
        return ConversationAccuracy(num_conversations=5, batch_size=batch_size)

    metrics = [metric(5), metric(2)]
    one = results(tmp_path / "one", perturbed(), metrics[0], data, board=True)
    assert one["conversations_n"] == 5
    assert results(tmp_path / "some", perturbed(), metrics[1], data) == one
    assert metrics[0].sample_results == metrics[1].sample_results
    for name in one.keys() - {"conversations_n"}:
        shares = [kept["values"].get(f"test/{name}") for kept in metrics[0].sample_results]
        counted = [share for share in shares if share is not None]
        assert sum(counted) / len(counted) == pytest.approx(one[name])
    sheet = next(tmp_path.rglob("conversations/test-step-00000000.png"))
    with PILImage.open(sheet) as picture:
        assert picture.width > 2 * picture.height  # two rows of four conversations of two pictures
    trainer = make_trainer(tmp_path, [metric(5)])
    for _ in range(2):
        trainer.validate(perturbed(), datamodule=data, verbose=False)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert values == {f"val/{name}": value for name, value in one.items()}


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
@pytest.mark.parametrize("num_conversations", [1, 3])
def test_two_ranks_agree_with_one(tmp_path: Path, num_conversations: int) -> None:
    data = small(known_samples()[:24])
    metric = ConversationAccuracy(num_conversations=num_conversations)
    expected = results(tmp_path / "one", perturbed(), metric, data)
    trainer = make_trainer(tmp_path, [metric, Keep()], devices=2, strategy="ddp_fork")
    trainer.test(perturbed(), datamodule=data, verbose=False)
    for rank in (0, 1):
        values = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert values == {f"test/{name}": value for name, value in expected.items()}


def test_not_applicable_without_image_to_text(tmp_path: Path) -> None:
    data = small(known_samples())
    assert results(tmp_path, tiny_module(TextPrefix), ConversationAccuracy(), data) == {}
    recaller = Recaller(can_answer=False)
    assert results(tmp_path, recaller, ConversationAccuracy(), KnownData()) == {}


def test_mistakes_are_named(tmp_path: Path) -> None:
    for name in ("num_conversations", "num_images", "batch_size", "every_n_validations"):
        with pytest.raises(UserError, match=f"{name} must be at least 1, got 0"):
            ConversationAccuracy(**{name: 0})
    nothing = [Known(key="k", image=draw("red", "circle"), caption="a circle", questions=())]
    with pytest.warns(UserWarning, match="measures nothing: .*the test samples have none"):
        results(tmp_path, tiny_module(), ConversationAccuracy(), small(nothing))
    with pytest.raises(UserError, match="ConversationAccuracy needs a module with can_answer"):
        results(tmp_path, Dense(), ConversationAccuracy(), KnownData())
