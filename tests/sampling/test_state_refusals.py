"""What a state refuses without being another one afterwards."""

import pytest
import torch

from pretzel.errors import UserError
from pretzel.generation.conversation import Conversation
from pretzel.generation.conversation_batch import ConversationBatch
from pretzel.generation.state import GenerationState
from pretzel.generation.writing import write_tokens
from pretzel.interleave import MixtureOfTransformers, Stacked
from pretzel.sampling.guidance import AttentionTemperature, LinearGuidance
from pretzel.testing import Case, tiny_pretzel

RED = "a red circle"


def begun(model, key="", **settings):
    return Conversation(ConversationBatch(model, [key], **settings))


def built(interleaving=Stacked):
    return Case(factory=lambda: tiny_pretzel(interleaving), perturbed=True).build()


def written(state, count=3):
    with torch.no_grad():
        return torch.stack(list(write_tokens(state, count)), dim=1).tolist()


def test_a_row_with_nothing_before_it_writes_no_text_beside_one_with_text():
    state = GenerationState(built(), 2, 30)
    state.read_text(["why?", ""])
    with pytest.raises(UserError, match="must follow a text or an image, got nothing before it"):
        written(state)


def test_a_text_longer_than_max_length_is_refused_and_leaves_the_state_as_it_was():
    model = built()
    length = len(model.vlm.encode_text(RED)) + 4
    state, plain = GenerationState(model, 2, length), GenerationState(model, 2, length)
    for one in (state, plain):
        one.read_text([RED, "why?"])
    with pytest.raises(
        UserError, match=rf"must fit into max_length of its caches, {length} positions"
    ):
        state.read_text(["why?", f"{RED} {RED}"])
    assert written(state) == written(plain)


def test_a_conversation_goes_on_behind_a_text_that_was_too_long():
    model = built()
    conversation, plain = (begun(model, max_length=12) for _ in range(2))
    for one in (conversation, plain):
        one.say(RED)
    with pytest.raises(UserError, match="must fit into max_length"):
        conversation.say(f"{RED} " * 5)
    assert conversation.answer(3) == plain.answer(3)
    assert [turn.kind for turn in conversation.turns] == ["say", "answer"]


def test_an_image_whose_beginning_is_refused_leaves_the_state_as_it_was():
    model = built(MixtureOfTransformers)  # its deep stream cannot be tempered
    guidance = AttentionTemperature(LinearGuidance(1.0), 1.3, keeps_context=True)
    state, plain = GenerationState(model, 1, 40), GenerationState(model, 1, 40)
    with torch.no_grad():
        for one in (state, plain):
            one.read_text(["a red"])
            one.flush()
            one.read_text(["circle"])
        with pytest.raises(UserError, match="needs attention"):
            state.begin_image(guidance)
    assert len(state.valid) == 1
    assert written(state) == written(plain)
