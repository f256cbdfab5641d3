"""The likelihood of given answers: that of training, of images and questions that are read once."""

from functools import partial

import pytest
import torch
from test_conversation import RED, built
from tiny import images, tiny_module

from pretzel.errors import UserError
from pretzel.generation.answers import choice_log_probs
from pretzel.generation.conversation_batch import ConversationBatch
from pretzel.generation.latents import ImageLatents
from pretzel.interleave import MixtureOfTransformers, Stacked, TextPrefix, Tiled
from pretzel.sequence.document import question_document

CHOICES = ["red", "a very small triangle", "no", "is it?"]
QUESTIONS = ["what color is the shape?", "why?", "is a small shape present?"]
IMAGE_OF_QUESTION = torch.tensor([1, 0, 1])


def latents(model):
    n, d = model.latent.num_positions, model.latent.channels
    return torch.randn(2, n, d, generator=torch.Generator().manual_seed(0), dtype=model.dtype)


@pytest.mark.parametrize(
    "interleaving", [Stacked, partial(Tiled, word="VF"), MixtureOfTransformers]
)
def test_likelihoods_are_those_of_training(interleaving):
    model = built(interleaving)
    x = latents(model)
    scores = choice_log_probs(model, x, IMAGE_OF_QUESTION, QUESTIONS, CHOICES)
    assert scores.shape == (3, 4)
    for row, question in enumerate(QUESTIONS):
        for column, choice in enumerate(CHOICES):
            document = question_document([(question, choice)])
            with torch.no_grad():
                nll = model.score([document], x[IMAGE_OF_QUESTION[row], None]).token_nll
            assert scores[row, column].item() == pytest.approx(-nll.sum().item(), abs=1e-9)
            mean = choice_log_probs(
                model, x, IMAGE_OF_QUESTION, QUESTIONS, [choice], per_token=True
            )
            assert mean[row, 0].item() == pytest.approx(-nll.mean().item(), abs=1e-9)


def test_an_image_is_read_once_whatever_is_asked_and_however_many_choices_there_are(monkeypatch):
    model, read = built(), []
    shallow = type(model.shallow).forward
    monkeypatch.setattr(
        type(model.shallow), "forward", lambda self, x: read.append(len(x)) or shallow(self, x)
    )
    choice_log_probs(model, latents(model), IMAGE_OF_QUESTION, QUESTIONS, CHOICES)
    assert read == [2]


def test_a_module_reads_images_of_one_key_once():
    module = tiny_module()
    pictures = images(3)[[0, 1, 0]]
    scores = module.choice_log_probs(pictures, QUESTIONS, ["a", "b", "a"], CHOICES)
    model = module.pretzel
    x = model.encode(pictures[:2], model.sample_noise(["a", "b"], module.seed, "evaluation"))
    expected = choice_log_probs(model, x, torch.tensor([0, 1, 0]), QUESTIONS, CHOICES)
    assert torch.equal(scores, expected)


def test_a_description_is_the_text_behind_the_image_or_the_request():
    module = tiny_module()
    model, pictures = module.pretzel, images(2)
    x = model.encode(pictures, model.sample_noise(["a", "b"], module.seed, "evaluation"))
    for request in ("", "what is it?"):
        batch = ConversationBatch(model, ["a", "b"], max_length=60)
        batch.show_latents(ImageLatents(u=model.shallow(x).z, x=x))
        if request:
            batch.say([request] * 2)
        described = module.describe(pictures, ["a", "b"], request=request, max_tokens=5)
        assert described == batch.answer(5)


def test_scoring_a_text_leaves_the_conversation_as_it_was():
    model = built()
    once, scored = (ConversationBatch(model, ["a", "b"], max_length=60) for _ in range(2))
    for batch in (once, scored):
        batch.say([RED, "a blue square, small"])
    before = scored.log_prob("yes")
    assert torch.equal(scored.log_prob("yes"), before)
    assert scored.answer(3) == once.answer(3)
    assert (scored.state.length, scored.segments) == (once.state.length, once.segments)


def test_mistakes_are_named():
    model = built()
    nothing = choice_log_probs(model, latents(model), IMAGE_OF_QUESTION[:0], [], CHOICES)
    assert nothing.shape == (0, 4)
    for choices in ([], ["red", ""]):
        with pytest.raises(UserError, match="choices must be texts of one token or more, got "):
            choice_log_probs(model, latents(model), IMAGE_OF_QUESTION, QUESTIONS, choices)
    with pytest.raises(UserError, match="interleaving must be one that answers questions"):
        choice_log_probs(built(TextPrefix), latents(model), IMAGE_OF_QUESTION, QUESTIONS, ["red"])
