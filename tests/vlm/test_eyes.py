"""Accuracy of the shipped model with its own vision tower, on real test images."""

import pytest
import torch

from datamodules import Captions, EasyVQA, Sample, WebDatasetDataModule
from pretzel.errors import UserError
from pretzel.vlm.tiny import TinyVLM
from pretzel.vlm.tiny.answers import greedy_answers

NUM_IMAGES = 100


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    data = WebDatasetDataModule(
        source=EasyVQA(), recipe=Captions(), image_size=32, batch_size=1, steps_per_epoch=1
    )
    return list(data.evaluation_samples("test", limit=NUM_IMAGES))


def ask(vlm: TinyVLM, samples: list[Sample], images: torch.Tensor) -> tuple[float, float]:
    """Return the accuracy over all and over open questions."""
    asked = [(i, *pair) for i, sample in enumerate(samples) for pair in sample.questions]
    numbers, questions, truths = zip(*asked, strict=True)
    answers = greedy_answers(
        vlm.network, vlm.tokenizer, images, torch.tensor(numbers), list(questions)
    )
    right = [a == b for a, b in zip(answers, truths, strict=True)]
    open_ones = [r for r, truth in zip(right, truths, strict=True) if truth not in ("yes", "no")]
    return sum(right) / len(right), sum(open_ones) / len(open_ones)


def test_it_answers_about_real_images(shipped, samples):
    images = torch.stack([sample.image for sample in samples])
    overall, open_questions = ask(shipped, samples, images)
    assert overall > 0.95
    assert open_questions > 0.93


def test_it_really_looks_at_the_image(shipped, samples):
    # the same questions about other images: below the blind baseline of 0.670
    images = torch.stack([sample.image for sample in samples]).roll(1, 0)
    overall, open_questions = ask(shipped, samples, images)
    assert overall < 0.67
    assert open_questions < 0.4


def test_it_answers_from_captions_alone(shipped):
    pairs = {
        "what color is the shape?": "teal",
        "what shape is in the image?": "triangle",
        "is there a teal shape?": "yes",
        "is there a red shape?": "no",
        "does the image not contain a circle?": "yes",
        "is no triangle present?": "no",
    }
    caption = shipped.encode_text("a teal triangle")
    for question, answer in pairs.items():
        tokens = torch.tensor([caption + shipped.encode_text(question)])
        index = torch.arange(tokens.shape[1])[None]
        state = shipped(shipped.embed(tokens), index)[0, -1]
        assert shipped.decode_text([int(shipped.logits(state).argmax())]) == answer, question


def test_it_expects_an_image_after_a_caption(shipped):
    tokens = torch.tensor([shipped.encode_text("a blue circle")])
    index = torch.arange(tokens.shape[1])[None]
    states = shipped(shipped.embed(tokens), index)[0]
    probability = shipped.logits(states).softmax(-1)[:, shipped.special.begin_of_image]
    # it may also be asked about a caption without an image, so that it is not near 1
    assert probability[-1] > 0.2
    assert (probability[:-1] < 0.01).all()


def test_answers_do_not_depend_on_company(shipped, samples):
    # images are shared by their questions and questions are padded: neither may matter
    images = torch.stack([sample.image for sample in samples[:3]])
    questions = [
        "what color is the shape?",
        "is a circle present?",
        "does the image not contain a teal shape?",
    ]
    several = torch.tensor([0, 1, 2, 2])
    together = greedy_answers(
        shipped.network, shipped.tokenizer, images, several, [*questions, questions[0]]
    )
    alone = [
        greedy_answers(
            shipped.network, shipped.tokenizer, images[i : i + 1], torch.tensor([0]), [question]
        )[0]
        for i, question in zip(several.tolist(), [*questions, questions[0]], strict=True)
    ]
    assert together == alone


def test_images_of_another_size_are_resampled(shipped):
    small = torch.rand(1, 3, 32, 32) * 2 - 1
    doubled = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    constant = torch.full((1, 3, 64, 64), 0.3)
    seen, grid = shipped.encode_images(constant)
    assert grid == (8, 8)
    torch.testing.assert_close(seen, shipped.encode_images(constant[..., :32, :32])[0])
    assert shipped.encode_images(doubled)[0].shape == shipped.encode_images(small)[0].shape
    with pytest.raises(UserError, match="must be 32 x 32 pixels for this vision tower, got"):
        shipped.network.vision(constant)
