"""The recipes of the stage that makes the tiny model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules import (
    CaptionQuestions,
    ColouredShapes,
    Descriptions,
    Sample,
    SceneCaptionQuestioner,
)
from pretzel.errors import UserError
from pretzel.sequence.document import Image, Text

SAMPLE = Sample(
    key="k",
    pixels=np.zeros((4, 4, 3), dtype=np.uint8),
    caption="a red circle",
    questions=(("is there a circle?", "yes"), ("what color is the shape?", "red")),
)


@pytest.mark.parametrize("recipe", [Descriptions(5), CaptionQuestions(5)])
def test_all_questions_are_asked_once_with_their_own_answers(recipe):
    (document,) = recipe.documents(SAMPLE, torch.Generator().manual_seed(0))
    texts = [s for s in document.segments if isinstance(s, Text)][1:]
    assert [t.role for t in texts] == ["context", "target"] * 2
    pairs = {(q.content, a.content) for q, a in zip(texts[::2], texts[1::2], strict=True)}
    assert pairs == set(SAMPLE.questions)
    assert document.key == "k"


def test_questions_may_be_those_that_the_caption_answers():
    recipe = CaptionQuestions(1, SceneCaptionQuestioner(ColouredShapes()))
    sample = replace(SAMPLE, questions=())
    assert recipe.accepts(sample)
    assert not CaptionQuestions(1).accepts(sample)
    documents = [recipe.documents(sample, torch.Generator().manual_seed(i))[0] for i in range(20)]
    asked = {tuple(s.content for s in own.segments if isinstance(s, Text)) for own in documents}
    assert ("a red circle", "what colour is the circle?", "red") in asked
    assert len(asked) == 5  # four kinds are counted


def test_captions_are_targets_only_after_the_image():
    generator = torch.Generator().manual_seed(0)
    (described,) = Descriptions(1).documents(SAMPLE, generator)
    (document,) = CaptionQuestions(1).documents(SAMPLE, generator)
    assert described.segments[:2] == (Image(), Text(content="a red circle", role="target"))
    assert document.segments[0] == Text(content="a red circle")
    assert (described.num_images, document.num_images) == (1, 0)


def test_questions_are_drawn_from_the_generator():
    def drawn(seed: int) -> object:
        return Descriptions(1).documents(SAMPLE, torch.Generator().manual_seed(seed))

    assert drawn(3) == drawn(3)
    assert len({drawn(seed) for seed in range(20)}) == 2


def test_an_image_may_have_its_caption_alone_as_target():
    (document,) = Descriptions(0).documents(SAMPLE, torch.Generator())
    assert document.segments == (Image(), Text(content="a red circle", role="target"))


@pytest.mark.parametrize(("recipe", "least"), [(Descriptions, 0), (CaptionQuestions, 1)])
def test_a_count_that_is_too_low_is_refused(recipe, least):
    with pytest.raises(UserError, match=f"per_image must be at least {least}, not {least - 1}"):
        recipe(per_image=least - 1)
