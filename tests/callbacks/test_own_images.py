"""Questions about images that the model has just generated, in the sequence of the images."""

import json
from collections import defaultdict
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from painted import forced
from test_likelihood import Dense
from tiny import perturb, tiny_module
from torch import Tensor
from torch.nn.functional import interpolate
from world import Known, KnownData, Recaller, draw, known_samples, make_trainer, names_at_test

from callbacks import OwnImages
from callbacks.easy_vqa.judge import COLOURS, SHAPES, read_caption
from callbacks.easy_vqa.judged_images import QUESTIONS, begin_conversations
from callbacks.easy_vqa.own_images import (
    QuestionAboutImage,
    agreements,
    answers_apart,
    contradiction,
)
from datamodules import EasyVQA
from pretzel.errors import UserError
from pretzel.generation.conversation import Conversation
from pretzel.generation.conversation_batch import conversations_with
from pretzel.interleave import Stacked, TextPrefix
from pretzel.interleave.tiled import Tiled
from pretzel.interleave.vision_input import LatentInput
from pretzel.media import Pictures
from pretzel.sampling.denoisers import ScoreDenoiser
from pretzel.sampling.guidance import NoGuidance
from pretzel.sequence.document import Document, Image, Text
from pretzel.training.module import PretzelModule
from pretzel.vlm.tiny import TinyVLM

CAPTIONS = ["a red circle", "a blue shape", "a triangle"]
KEYS = ["a#0", "b#0", "c#0"]  # as conversations name the noise of their first image
ASKED = list(QUESTIONS.values())


def small(samples: list[Known]) -> KnownData:
    """Return data of 8 x 8 pixels, the size of the tiny model's images."""
    return KnownData(
        samples=[
            replace(s, image=interpolate(s.image[None], (8, 8), mode="area")[0]) for s in samples
        ]
    )


def generated(module: PretzelModule):
    """Return conversations behind a caption and its image, and the images."""
    conversations = behind(module, CAPTIONS)
    noise = module.pretzel.sample_noise(KEYS, module.seed, "draw")
    return conversations, conversations.generate(noise)


def behind(module: PretzelModule, captions: list[str]):
    """Return conversations behind captions."""
    conversations = begin_conversations(module, [[caption] for caption in captions], KEYS)
    conversations.say(captions)
    return conversations


def results(
    folder: Path, module: LightningModule, metric: Callback, data: KnownData, **settings: object
) -> dict[str, float]:
    trainer = make_trainer(folder, [metric], **settings)
    trainer.test(module, datamodule=data, verbose=False)
    return {
        name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()
    }


def perturbed(interleaving=Stacked, **kwargs) -> PretzelModule:
    torch.manual_seed(0)
    module = tiny_module(interleaving, **kwargs)
    perturb(module)
    return module.eval()


# What is asked, and what counts


def test_wordings_are_those_of_the_data_and_their_answers_the_judge_s_names() -> None:
    for split in ("train", "test"):
        source, found = EasyVQA(), defaultdict(set)
        for shard in source.shards(split):
            for raw in source.read(shard):
                for question, answer in json.loads(raw.members["json"])["questions"]:
                    found[question].add(answer)
        assert found[QUESTIONS["colour"]] == set(COLOURS)
        assert found[QUESTIONS["shape"]] == set(SHAPES)


def test_groups_without_questions_have_no_value_but_a_number() -> None:
    said = QuestionAboutImage(
        key="",
        attribute="colour",
        caption="",
        wanted=None,
        seen="red",
        answer="red",
        contradicted="blue",
    )
    assert agreements([said, replace(said, answer="blue")]) == {
        "drawn_vqa_caption_n": 0,
        "drawn_vqa_judge": 0.5,
        "drawn_vqa_judge_colour": 0.5,
        "drawn_vqa_judge_n": 2,
        "drawn_vqa_contradicted": 0,
        "drawn_vqa_contradicted_colour": 0,
        "drawn_vqa_contradicted_n": 2,
    }


def test_a_contradiction_names_another_colour_and_another_shape() -> None:
    for colour, shape in product(COLOURS, SHAPES):
        said = read_caption(contradiction(colour, shape))
        assert all(said)
        assert said.colour != colour
        assert said.shape != shape


class Says(Stacked):
    """Answers the two questions of every drawing with ``red`` and ``circle``, then otherwise."""

    step = 0

    def logits(self, text: Tensor, vlm: TinyVLM) -> Tensor:
        words = ("red", "circle") if self.step % 4 < 2 else ("blue", "rectangle")
        says = torch.tensor([vlm.encode_text(word)[0] for word in words]).repeat(len(text) // 2)
        if self.step % 2:
            says = torch.full_like(says, vlm.special.end_of_text)
        self.step += 1
        return torch.nn.functional.one_hot(says, 512).float()


def test_known_images_and_known_answers_give_known_numbers(tmp_path: Path) -> None:
    wanted = ["a red circle", "a red triangle", "a shape", "a blue circle", "a circle"]
    painted = [("red", "circle"), ("teal", "circle"), ("blue", "circle"), ("red", "rectangle")]
    samples = [
        Known(key=str(i), image=draw("black", "triangle"), caption=caption, questions=())
        for i, caption in enumerate(wanted)
    ]
    module = forced([draw(*look) for look in painted], Says)
    metric = OwnImages(batch_size=3)
    found = results(tmp_path, module, metric, KnownData(samples=samples))
    assert found.keys() == names_at_test(metric)
    assert metric.facts.keys() == {f"test/{name}" for name in found if not name.endswith("_n")}
    assert all(own["n"] == 4 and own["extractor"] for own in metric.facts.values())
    assert module.denoiser.painted == []  # nothing is asked for where a caption names nothing
    assert found == pytest.approx(
        {
            # of the captions, "a circle" leaves the colour open
            "drawn_vqa_caption": 5 / 7,
            "drawn_vqa_caption_colour": 2 / 3,
            "drawn_vqa_caption_shape": 3 / 4,
            "drawn_vqa_caption_n": 7,
            "drawn_vqa_judge": 5 / 8,
            "drawn_vqa_judge_colour": 2 / 4,
            "drawn_vqa_judge_shape": 3 / 4,
            "drawn_vqa_judge_n": 8,
            # the blue one and the rectangle
            "drawn_vqa_contradicted": 2 / 8,
            "drawn_vqa_contradicted_colour": 1 / 4,
            "drawn_vqa_contradicted_shape": 1 / 4,
            "drawn_vqa_contradicted_n": 8,
        }
    )


# One sequence


@pytest.mark.parametrize(
    "interleaving",
    [Stacked, partial(Stacked, vision_input=LatentInput()), partial(Tiled, word="VVVVF")],
)
def test_batches_equal_conversations_one_by_one(interleaving) -> None:
    module = perturbed(interleaving, denoiser=ScoreDenoiser())
    conversations, pixels = generated(module)
    answers = answers_apart(conversations, ASKED)
    torch.testing.assert_close(pixels, module.generate(CAPTIONS, KEYS, seed=module.seed))
    for i, caption in enumerate(CAPTIONS):
        talk = Conversation(conversations_with(module, [KEYS[i][0]], max_length=64))
        talk.say(caption)
        alone, of_batch = (
            np.asarray(picture, dtype=int)
            for picture in (talk.generate(), Pictures(32).outputs(pixels[i : i + 1])[0])
        )
        assert np.abs(alone - of_batch).max() <= 1  # products of another batch round otherwise
        for question, answer in zip(ASKED, answers[i], strict=True):
            fork = talk.fork()
            fork.say(question)
            assert fork.answer(max_tokens=8) == answer
    assert len({answer for row in answers for answer in row}) > 1


@pytest.mark.parametrize("given", [CAPTIONS, ["a teal triangle", "a shape", "a red circle"]])
def test_the_sequence_is_the_packed_document_of_caption_image_question(given) -> None:
    """The first token is the likeliest one where the whole document is run at once."""
    module = perturbed()
    model = module.pretzel
    conversations, _ = generated(module)
    (latents,) = conversations.latents
    answers = answers_apart(conversations, ASKED, max_tokens=1)
    if given is not CAPTIONS:
        others = behind(module, given)
        others.show_latents(latents)
        answers = answers_apart(others, ASKED, max_tokens=1)
    states = []
    model.interleaving.register_forward_hook(lambda part, args, out: states.append((args[0], out)))
    for i, question in enumerate(ASKED):
        documents = [
            Document(
                key=key,
                segments=(
                    Text(content=caption),
                    Image(),
                    Text(content=question),
                    Text(content="", role="target"),
                ),
            )
            for key, caption in zip(KEYS, given, strict=True)
        ]
        states.clear()
        with torch.no_grad():
            model.score(documents, latents.x.clone())
        ends = model.pack(documents).targets == model.vlm.special.end_of_text
        assert ends.sum() == 3
        logits = model.interleaving.logits(states[0][1].text[ends], model.vlm)
        special = model.vlm.special
        logits[:, [special.pad, special.begin_of_image, special.end_of_image]] = -torch.inf
        first = [
            "" if token == special.end_of_text else model.vlm.decode_text([token])
            for token in logits.argmax(-1).tolist()
        ]
        assert first == [row[i] for row in answers]


def test_a_drawing_is_made_once_and_read_once_whatever_is_asked(monkeypatch) -> None:
    module = perturbed()
    module.guidance = NoGuidance()
    model, counted = module.pretzel, []
    model.interleaving.register_forward_hook(
        lambda part, args, out: counted.append(int(args[0].is_image.sum()))
    )
    monkeypatch.setattr(model, "encode", None)
    monkeypatch.setattr(model.shallow, "forward", None)
    conversations, _ = generated(module)
    answers_apart(conversations, ASKED)
    assert sum(counted) == 3 * model.latent.num_positions
    again = behind(module, CAPTIONS)
    again.show_latents(conversations.latents[0])
    answers_apart(again, ASKED)
    assert sum(counted) == 2 * 3 * model.latent.num_positions


# In the trainer


def test_values_do_not_depend_on_batches_ranks_or_repetition(tmp_path: Path) -> None:
    data = small(known_samples())

    def metric(batch_size: int) -> OwnImages:
        return OwnImages(num_images=9, batch_size=batch_size)

    one = results(tmp_path / "one", perturbed(), metric(9), data)
    assert one["drawn_vqa_judge_n"] == 18
    assert results(tmp_path / "some", perturbed(), metric(4), data) == one
    trainer = make_trainer(tmp_path, [metric(9)])
    for _ in range(2):
        trainer.validate(perturbed(), datamodule=data, verbose=False)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert values == {f"val/{name}": value for name, value in one.items()}


class Keep(Callback):
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        torch.save(values, Path(trainer.default_root_dir) / f"rank{trainer.global_rank}.pt")


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
@pytest.mark.parametrize("num_images", [1, 5])
def test_two_ranks_agree_with_one(tmp_path: Path, num_images: int) -> None:
    data = small(known_samples()[:24])
    metric = OwnImages(num_images=num_images, batch_size=2)
    expected = results(tmp_path / "one", perturbed(), metric, data)
    trainer = make_trainer(tmp_path, [metric, Keep()], devices=2, strategy="ddp_fork")
    trainer.test(perturbed(), datamodule=data, verbose=False)
    for rank in (0, 1):
        values = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert values == {f"test/{name}": value for name, value in expected.items()}


def test_a_share_of_captions_is_spread(tmp_path: Path) -> None:
    module, drawn = perturbed(), []
    sample_noise = module.pretzel.sample_noise

    def keep(keys: list[str], *purpose: int | str) -> Tensor:
        if "draw" in purpose:
            drawn.extend(keys)
        return sample_noise(keys, *purpose)

    module.pretzel.sample_noise = keep
    results(tmp_path, module, OwnImages(num_images=5), small(known_samples()))
    assert drawn == ["0-0", "1-1", "3-0", "4-2", "6-1"]


def test_not_applicable_without_image_to_text(tmp_path: Path) -> None:
    data = small(known_samples())
    assert results(tmp_path, tiny_module(TextPrefix), OwnImages(), data) == {}
    assert results(tmp_path, Recaller(can_answer=False), OwnImages(), KnownData()) == {}


def test_what_the_judge_contradicts_is_shown(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    samples = [Known(key="k", image=draw("red", "circle"), caption="a red circle", questions=())]
    for number, look in enumerate([("teal", "circle"), ("red", "circle")]):
        folder = tmp_path / str(number)
        module, data = forced([draw(*look)], Says), KnownData(samples=samples)
        results(folder, module, OwnImages(), data, board=True)
        events = EventAccumulator(str(next(folder.rglob("events.*")).parent)).Reload()
        tensor = events.Tensors("test/own_images/text_summary")[0].tensor_proto
        text = tensor.string_val[0].decode()
        assert text.startswith(f"{1 - number} of 2 answers")
        assert ("| k | a red circle | teal | red |" in text) == (number == 0)


def test_mistakes_are_named(tmp_path: Path) -> None:
    for name in ("num_images", "batch_size", "every_n_validations"):
        with pytest.raises(UserError, match=f"{name} must be at least 1, got 0"):
            OwnImages(**{name: 0})
    nothing = [Known(key="k", image=draw("red", "circle"), caption="a shape", questions=())]
    with pytest.warns(UserWarning, match="OwnImages measures nothing: .*test samples have none"):
        results(tmp_path, tiny_module(), OwnImages(), small(nothing))
    with pytest.raises(UserError, match="OwnImages needs a module with can_answer"):
        results(tmp_path, Dense(), OwnImages(), KnownData())
