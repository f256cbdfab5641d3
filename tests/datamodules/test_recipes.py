"""Recipes: what a sample becomes, and by which random stream."""

import math
from itertools import repeat

import numpy as np
import pytest
import torch

from datamodules import Captions, Mixture, Questions, Sample
from datamodules.sample import Unusable
from pretzel.errors import UserError
from pretzel.rng import stream
from pretzel.sequence.document import Image, Text

PIXELS = np.zeros((4, 4, 3), dtype=np.uint8)
PAIRS = tuple((f"q{i}", f"a{i}") for i in range(5))
SAMPLE = Sample(key="k", pixels=PIXELS, caption="a cat", questions=PAIRS)


def documents(recipe, count, name="test"):
    drawn = [recipe.draw(SAMPLE, repeat(SAMPLE), stream(0, name, i)) for i in range(count)]
    return [d.document for documents in drawn for d in documents]


def test_caption_precedes_the_image():
    (document,) = Captions(drop=0.0).documents(SAMPLE, stream(0))
    assert document.key == "k"
    assert document.segments == (Text(content="a cat", role="context"), Image())


def test_captions_are_dropped_at_their_rate_and_keep_their_text():
    dropped = [d for d in documents(Captions(drop=0.25), 2000) if d.segments[0].role == "dropped"]
    assert len(dropped) == pytest.approx(500, abs=4 * (2000 * 0.25 * 0.75) ** 0.5)
    assert dropped[0].segments[0].content == "a cat"


def test_a_higher_drop_rate_drops_the_same_captions_and_more():
    def dropped(rate):
        actual = documents(Captions(drop=rate), 200)
        return {i for i, d in enumerate(actual) if d.segments[0].role == "dropped"}

    assert dropped(0.1) < dropped(0.3)


def test_questions_follow_the_image_and_their_answers_are_targets():
    (document,) = Questions(per_image=2).documents(SAMPLE, stream(0))
    image, question, answer, second, _ = document.segments
    assert image == Image()
    assert (question.role, answer.role) == ("context", "target")
    assert (question.content, answer.content) in PAIRS
    assert question != second


def test_every_question_gets_its_turn():
    asked = {d.segments[1].content for d in documents(Questions(), 100)}
    assert asked == {question for question, _ in PAIRS}


def test_questions_are_not_repeated_where_there_are_few():
    (document,) = Questions(per_image=99).documents(SAMPLE, stream(0))
    assert sorted(s.content for s in document.segments[1::2]) == [q for q, _ in PAIRS]


def test_mixture_draws_by_weight():
    recipe = Mixture(recipes=[Captions(drop=0.0), Questions()], weights=[3.0, 1.0])
    captions = sum(isinstance(d.segments[0], Text) for d in documents(recipe, 2000))
    assert captions == pytest.approx(1500, abs=4 * (2000 * 0.75 * 0.25) ** 0.5)


def test_recipes_neither_read_nor_move_the_global_stream():
    recipe = Mixture(recipes=[Captions(drop=0.5), Questions()], weights=[1.0, 1.0])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = documents(recipe, 20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert documents(recipe, 20) == first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Captions(drop=1.5), "drop must be a probability in [0, 1], not 1.5"),
        (lambda: Questions(per_image=0), "per_image must be at least 1, not 0"),
        (lambda: Mixture([Captions()], [1.0, 2.0]), "2 weights for 1 recipes"),
        (lambda: Mixture([Captions()], [0.0]), "weights must be positive and finite, not [0.0]"),
        (lambda: Mixture([Captions()], [math.inf]), "weights must be positive and finite, not"),
    ],
)
def test_wrong_numbers_are_refused(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value)


def test_questions_need_questions():
    sample = Sample(key="lonely", pixels=PIXELS, caption="a cat")
    with pytest.raises(Unusable, match="recipe Questions needs questions"):
        Questions().check(sample)
