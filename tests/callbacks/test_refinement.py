"""Pictures that a model checks itself: which is taken, what is asked, and what is logged."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from painted import forced
from test_own_images import Keep, perturbed, results, small
from tiny import tiny_module
from torch import Tensor
from world import Known, KnownData, known_samples, make_trainer, names_at_test

from callbacks import (
    FID,
    GenerationMetric,
    Refinement,
    SceneAccuracy,
)
from callbacks.checked_pictures import Caption, checked_pictures
from callbacks.picture_choice import WAYS, Candidates, choose
from callbacks.prompts import Prompt
from datamodules import (
    ColouredShapes,
    EmojiSprites,
    SceneCaptionQuestioner,
    Scenes,
)
from datamodules.scenes.captions import write_caption
from datamodules.scenes.held_out import HeldOut
from datamodules.scenes.questions import Questioner
from datamodules.scenes.scene import Scene, SceneObject
from pretzel.errors import UserError
from pretzel.interleave import Stacked, TextPrefix
from pretzel.latent.generative_model import normal_log_prob
from pretzel.rng import global_states
from pretzel.sequence import CaptionQuestioner

LOOK = ColouredShapes(4, 4)
ASK = SceneCaptionQuestioner(LOOK)

# Which picture is taken


def test_each_way_takes_the_picture_that_it_should():
    candidates = [
        Candidates(num_questions=4, num_right=[2, 4, 4], log_probs=[3.0, 1.0, 2.0]),
        Candidates(num_questions=3, num_right=[1, 2, 2], log_probs=[1.0, 2.0, 3.0]),
        Candidates(num_questions=2, num_right=[2, 0, 2], log_probs=[1.0, 2.0, 0.0]),
    ]
    assert [own.num_drawn for own in candidates] == [2, 3, 1]
    assert choose(candidates) == {
        "first": [0, 0, 0],
        "redrawn": [1, 1, 0],
        "likelihood_equal": [0, 1, 1],  # of two each: six in all
        "likelihood": [0, 2, 1],
        "answers": [2, 2, 0],
    }


def test_likelihood_has_as_many_pictures_as_were_drawn():
    # the likeliest is the last of those that are there to choose from
    candidates = [
        Candidates(num_questions=1, num_right=own, log_probs=[0.0, 1.0, 2.0, 3.0])
        for own in ([0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0])
    ]
    equal = [number + 1 for number in choose(candidates)["likelihood_equal"]]
    assert sum(equal) == sum(own.num_drawn for own in candidates) == 12
    assert {*equal} == {2, 3}


# What is asked


def test_all_that_a_caption_says_is_asked_once():
    assert dict(ASK("three circles")) == {
        "how many circles are there?": "3",
        "how many squares are there?": "0",
        "how many triangles are there?": "0",
        "how many stars are there?": "0",
    }
    dense = (
        "a red circle, a blue circle left of the red circle, and a red star above the red circle"
    )
    assert ASK(dense) == [
        ("how many circles are there?", "2"),
        ("how many stars are there?", "1"),
        ("how many squares are there?", "0"),
        ("how many triangles are there?", "0"),
        ("is there a red circle?", "yes"),
        ("is there a blue circle?", "yes"),
        ("what colour is the star?", "red"),
        ("is the blue circle left of the red circle?", "yes"),
        ("is the blue circle right of the red circle?", "no"),
        ("is the star above the red circle?", "yes"),
        ("is the star below the red circle?", "no"),
    ]
    assert ASK("a photo of a dog") == []


@pytest.mark.parametrize("look", [LOOK, EmojiSprites(12)])
def test_questions_are_those_of_the_data_and_right_of_the_scenes_of_the_captions(look):
    world, asks, seen = Scenes(look), SceneCaptionQuestioner(look), set()
    questioner = Questioner(look, HeldOut(look), world.skills)
    for number in range(10):
        composed = world.scene("test", number)
        told = {
            one.question: one.answer
            for i in range(300)
            for one in questioner(composed.scene, Random(i))
        }
        asked = dict(asks(write_caption(composed.description)))
        seen |= {question.split()[0] for question in asked.keys() & told.keys()}
        assert {q: told[q] for q in asked.keys() & told.keys()}.items() <= asked.items()
        # the data asks neither for many of one kind among others, nor for what is held out
        unknown = asked.keys() - told.keys()
        assert all(q.startswith(("how many", "is there")) for q in unknown)
    assert seen >= {"how", "is"} | ({"what"} if look.colours else set())


# What is logged


class Says(Stacked):
    """Gives known answers, to all questions of a call at once."""

    step = 0

    def logits(self, text: Tensor, vlm) -> Tensor:
        if not self.said or len(text) != len(self.said[0]):  # of the likelihood of a caption
            return super().logits(text, vlm)
        end = vlm.special.end_of_text
        rows = [[*vlm.encode_text(word), end] for word in self.said[0]]
        tokens = [row[min(self.step, len(row) - 1)] for row in rows]
        self.step += 1
        if self.step == max(map(len, rows)):
            self.step, self.said = 0, self.said[1:]
        return torch.nn.functional.one_hot(torch.tensor(tokens), 512).float()


def painted(*kinds: str) -> Tensor:
    """Return a picture of objects side by side."""
    objects = tuple(
        SceneObject(kind=kind, colour="red", x=0.3 + 0.4 * i, y=0.5, size=0.36)
        for i, kind in enumerate(kinds)
    )
    picture = LOOK.render(Scene(objects=objects, ground=((240, 235, 250),)), 32)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 127.5 - 1


def test_known_pictures_and_known_answers_give_known_numbers(tmp_path: Path):
    circle, square, squares = painted("circle"), painted("square"), painted("square", "square")
    captions = ["a circle", "a photo of a dog", "two squares"]
    samples = [
        Known(key=str(i), image=circle, caption=caption, questions=())
        for i, caption in enumerate(captions)
    ]
    pictures = [square, squares, circle, square, square, square]
    is_right = [[0, 1, 0], [1, 0, 0]]  # of each caption, by the number of the picture
    module = forced(pictures, Says)
    never, nothing = ["two.", "0", "0", "no"], ["0", "0", "0", "0"]  # "two." is 2, as VQAv2 has it
    module.pretzel.interleaving.said = [
        [*nothing, *never],
        ["1", "0", "0", "0", *nothing],
        [*nothing, *never],
    ]
    metric = Refinement(SceneAccuracy(LOOK), ASK, rounds=2)
    values = results(tmp_path, module, metric, KnownData(samples=samples))
    assert module.denoiser.painted == []
    assert values.keys() <= names_at_test(metric)

    # flow and skips begin as the identity: log p(x) is that of the noise
    model = module.pretzel
    likelihoods = [
        normal_log_prob(model.sample_noise([key, f"{key}#1 anew", f"{key}#2 anew"], 0, "draw"))
        for key in "02"
    ]
    likeliest = [int(own.argmax()) for own in likelihoods]
    equal = [int(likelihoods[0][:2].argmax()), likeliest[1]]  # two and three pictures were drawn
    taken = {
        "first": [0, 0],
        "redrawn": [1, 0],
        "likelihood_equal": equal,
        "likelihood": likeliest,
        "answers": [1, likeliest[1]],
    }
    assert taken.keys() == set(WAYS)
    for way, numbers in taken.items():
        hits = [own[number] for own, number in zip(is_right, numbers, strict=True)]
        assert values[f"refine/{way}/scenes/right"] == sum(hits) / 2
        assert values[f"refine/{way}/scenes/single"] == hits[0]
        assert values[f"refine/{way}/scenes/right_n"] == 2
    assert values["refine/pictures"] == 2.5
    facts = metric.facts["test/refine/redrawn/scenes/right"]
    assert facts["pictures"] == "1 to 3"
    assert facts["n"] == values["refine/pictures_n"] == 2
    one, other = metric.sample_results
    assert one["values"]["test/refine/redrawn/scenes/right"] == 1
    assert one["texts"]["wrong of each"] == "how many circles are there? 0; none"
    assert other["values"]["test/refine/pictures"] == 3


class Colour(CaptionQuestioner):
    def __call__(self, caption: str) -> list[tuple[str, str]]:
        return [("what color is the shape?", caption.split()[1])] if "circle" in caption else []


class Brightness(GenerationMetric):
    def prepare(self, device: torch.device) -> None:
        self.reset()

    def describe(self) -> str:
        return "mean of all channels"

    def reset(self) -> None:
        self.means: list[float] = []

    def update(self, images: Tensor, prompts: list[str]) -> None:
        self.means += images.mean((1, 2, 3)).tolist()

    def names(self) -> set[str]:
        return {"brightness"}

    def compute(self) -> dict[str, float]:
        return {"brightness": sum(self.means) / len(self.means)}


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
def test_values_do_not_depend_on_batches_or_ranks(tmp_path: Path):
    data, module = small(known_samples()[:24]), perturbed()
    metric = Refinement(Brightness(), Colour(), num_captions=5, rounds=2, batch_size=5)
    one = results(tmp_path / "one", module, metric, data)
    assert len({one[f"refine/{way}/brightness"] for way in ("first", "likelihood")}) == 2
    two = Refinement(Brightness(), Colour(), num_captions=5, rounds=2, batch_size=2)
    trainer = make_trainer(tmp_path, [two, Keep()], devices=2, strategy="ddp_fork")
    trainer.test(perturbed(), datamodule=data, verbose=False)
    for rank in (0, 1):
        values = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert values == pytest.approx({f"test/{name}": value for name, value in one.items()})


def test_the_first_picture_is_that_of_the_module_and_others_are_others():
    module = perturbed()
    asked = (("what shape is it?", "circle"),)
    captions = [
        Caption(place=i, key=key, prompt=Prompt(text=f"a {key} circle"), asked=asked)
        for i, key in enumerate(("red", "blue"))
    ]
    texts, keys = ["a red circle", "a blue circle"], ["red", "blue"]
    generated = module.generate(texts, keys, seed=module.seed)
    before = global_states()
    checked = checked_pictures(module, captions, 2)
    assert torch.equal(global_states()["torch"], before["torch"])
    assert global_states()["numpy"] == before["numpy"]  # Python's is drawn from by type checks
    for own, image in zip(checked, generated, strict=True):
        first, second = own.pictures / 127.5 - 1
        torch.testing.assert_close(first, image, atol=1 / 127, rtol=0)
        assert (second - image).abs().max() > 0.1


def test_what_cannot_be_refined_is_said(tmp_path: Path):
    data = small(known_samples()[1:2])  # of a caption that names no circle
    metric = Refinement(Brightness(), Colour())
    assert results(tmp_path, tiny_module(TextPrefix), metric, data) == {}
    with pytest.warns(UserWarning, match="Refinement measures nothing: .*test samples have none"):
        results(tmp_path, tiny_module(), metric, data)
    with pytest.raises(UserError, match="rounds must be at least 1, got 0"):
        Refinement(Brightness(), ASK, rounds=0)
    with pytest.raises(UserError, match="FID compares them with real ones"):
        Refinement(FID(), ASK)
