"""Sessions and conversations at their edges: what is refused, interrupted, begun by the model."""

from functools import partial

import pytest
import torch
from PIL import Image as Pictures

from pretzel.errors import UserError
from pretzel.generation.answers import answer
from pretzel.generation.conversation import Conversation
from pretzel.generation.conversation_batch import ConversationBatch
from pretzel.generation.latents import generate_latents
from pretzel.generation.state import GenerationState
from pretzel.generation.writing import Writing, write_tokens
from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.interleave.vision_input import LatentInput
from pretzel.sampling.denoisers import Denoiser, NoDenoiser, ScoreDenoiser
from pretzel.sampling.guidance import (
    AttentionTemperature,
    Gaussian,
    GaussianMixing,
    LinearGuidance,
    NoGuidance,
)
from pretzel.sequence.document import Document
from pretzel.testing import Case, tiny_pretzel
from pretzel.testing.laws.models import latents

RED = "a red circle"
RANDOM = Writing(temperature=2.0)


def begun(model, key="", **settings):
    return Conversation(ConversationBatch(model, [key], **settings))


def built(interleaving=Stacked, **sizes):
    return Case(factory=lambda: tiny_pretzel(interleaving, **sizes), perturbed=True).build()


class Scripted(Writing):
    """Writes given tokens, a list for each step."""

    def choose(self, logits, uniform=None):
        return torch.tensor(self.steps.pop(0))


def scripted(steps):
    writing = Scripted()
    object.__setattr__(writing, "steps", [list(step) for step in steps])
    return writing


# Begin-of-image that the model writes


def drawn_behind(model, texts, steps, z, guidance):
    state = GenerationState(model, len(texts), 60)
    with torch.no_grad():
        state.read_text(texts)
        for _ in write_tokens(state, len(steps), scripted(steps), may_begin_image=True):
            pass
        drawn = generate_latents(state, z, guidance)
        state.flush()
    return drawn, state


def test_images_that_rows_begin_at_other_steps_are_those_of_single_runs():
    model, guidance = built(), GaussianMixing(1.0)
    begin = model.vlm.special.begin_of_image
    z = latents(model, 2, key="z")
    texts, rows = [RED, "why?"], [[begin], [7, 8, begin]]
    steps = [[begin, 7], [begin, 8], [begin, begin]]
    together, state = drawn_behind(model, texts, steps, z, guidance)
    for row in range(2):
        alone, one = drawn_behind(
            model, texts[row : row + 1], [[t] for t in rows[row]], z[row : row + 1], guidance
        )
        torch.testing.assert_close(together.u[row], alone.u[0], rtol=0, atol=1e-10)
        assert state.next_index[row] == one.next_index[0]


def test_begin_of_image_that_is_written_is_committed_by_the_image_alone():
    model = built()
    begin = model.vlm.special.begin_of_image
    z = latents(model, 1, key="z")
    for guidance in (NoGuidance(), GaussianMixing(1.0)):
        written, state = drawn_behind(model, [RED], [[begin]], z, guidance)
        asked = GenerationState(model, 1, 60)
        with torch.no_grad():
            asked.read_text([RED])
            expected = generate_latents(asked, z, guidance)
            asked.flush()
        torch.testing.assert_close(written.u, expected.u, rtol=0, atol=1e-10)
        assert state.length == asked.length


def test_text_before_an_image_that_the_model_begins_is_packed_as_it_was_committed():
    model = built()
    special = model.vlm.special
    word = model.vlm.encode_text("red")
    steps = [[t] for t in [*word, special.begin_of_image, *word, special.end_of_text]]
    conversation = begun(model, writing=scripted(steps), denoiser=ScoreDenoiser())
    conversation.say(RED)
    found = list(conversation.continue_freely(max_tokens=20))
    assert sum(not isinstance(piece, str) for piece in found) == 1
    turns = [(turn.kind, turn.text) for turn in conversation.turns]
    assert turns == [("say", RED), ("answer", "red"), ("generate", ""), ("answer", "red")]
    packed = model.packer([Document(key="", segments=tuple(conversation.batch.segments[0]))])
    with torch.inference_mode():
        conversation.batch.state.flush()
    assert int(packed.is_valid.sum()) == int(conversation.batch.state.valid.sum())


def test_what_is_said_instead_of_a_begun_image_follows_the_text():
    model = built()
    begin = model.vlm.special.begin_of_image
    conversation = begun(model, writing=scripted([[begin]]))
    conversation.say(RED)
    for _ in conversation._stream(1, may_begin_image=True):
        pass
    conversation.say("why?")
    picture = conversation.generate()
    plain = begun(model)
    plain.say(RED)
    plain.say("why?")
    assert picture.tobytes() == plain.generate().tobytes()


# Forks


@pytest.mark.parametrize("interleaving", [Stacked, TextPrefix, Unconditional])
def test_every_model_forks_before_and_behind_an_image(interleaving):
    model = built(interleaving)
    conversation = begun(model)
    conversation.say(RED)
    fork = conversation.fork()
    picture = conversation.generate()
    assert fork.generate().tobytes() == picture.tobytes()
    assert len(conversation.fork().turns) == 2


def test_a_prompt_that_is_read_with_its_image_cannot_be_flushed():
    state = GenerationState(built(TextPrefix), 1, 40)
    state.read_text([RED])
    with pytest.raises(UserError, match="TextPrefix reads text together with the image behind it"):
        state.flush()


# What is refused, and leaves everything as it was


def test_no_tokens_are_no_text():
    model = built()
    message = "max_tokens must be at least 1, got 0"
    conversation = begun(model)
    conversation.say(RED)
    with pytest.raises(UserError, match=message):
        conversation.answer(max_tokens=0)
    with pytest.raises(UserError, match=message):
        list(conversation.continue_freely(max_tokens=0))
    with pytest.raises(UserError, match=message):
        answer(model, latents(model, 1), torch.tensor([0]), ["why?"], max_tokens=0)


@pytest.mark.parametrize("guidance", [NoGuidance(), GaussianMixing(1.0)])
@pytest.mark.parametrize("rows", [1, 3])
def test_noise_of_other_rows_is_refused(guidance, rows):
    model = built()
    state = GenerationState(model, 2, 40)
    state.read_text([RED, "why?"])
    with pytest.raises(UserError, match=f"z must have 2 rows, one per sequence, got {rows}"):
        generate_latents(state, latents(model, rows), guidance)


def test_an_image_that_does_not_fit_leaves_the_state_as_it_was():
    model = built()
    n, z = model.latent.num_positions, latents(model, 1)
    asked = len(model.vlm.encode_text(RED))
    for flushed in (False, True):
        state = GenerationState(model, 1, asked + n)  # begin-of-image is one too many
        with torch.no_grad():
            state.read_text([RED])
            if flushed:
                state.flush()
            for guidance in (NoGuidance(), GaussianMixing(1.0)):
                with pytest.raises(UserError, match="must fit into max_length of its caches"):
                    generate_latents(state, z, guidance)
            with pytest.raises(UserError, match="must fit into max_length of its caches"):
                state.read_image(z)
            found = [int(token) for token in write_tokens(state, 2)]
            plain = GenerationState(model, 1, asked + n)
            plain.read_text([RED])
            assert found == [int(token) for token in write_tokens(plain, 2)]
    generate_latents(GenerationState(model, 1, 1 + n), z, NoGuidance())


def test_an_image_that_must_be_seen_must_be_given():
    state = GenerationState(built(partial(Stacked, vision_input=LatentInput())), 1, 40)
    z = latents(state.model, 1)
    with pytest.raises(UserError, match="x must be given where the vision-language model is not"):
        state.read_image(z)
    assert not state.pending


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


class Interrupts(LinearGuidance):
    """Is interrupted at an image's third position."""

    count = 0

    def mix(self, conditional, null, weight):
        self.count += 1
        if self.count == 3:
            raise KeyboardInterrupt
        return Gaussian(mu=conditional.mu, sigma=conditional.sigma)


@pytest.mark.parametrize("where", ["null branch", "deep", "shallow"])
def test_an_image_that_is_interrupted_leaves_the_state_as_it_was(where, monkeypatch):
    model = built()
    z = latents(model, 2, key="z")
    texts = [RED, "why?"]

    def begun():
        state = GenerationState(model, 2, 80)
        state.read_text(["look", "a"])
        generate_latents(state, latents(model, 2, key="first"), NoGuidance())
        state.read_text(texts)
        return state

    with torch.no_grad():
        state, plain = begun(), begun()
        guidance = Interrupts(1.0) if where == "null branch" else NoGuidance()
        with monkeypatch.context() as patch:
            if where == "deep":
                patch.setattr(
                    "pretzel.generation.state.GenerationState.complete_image", interrupted
                )
            if where == "shallow":
                patch.setattr("pretzel.generation.latents.invert_stack", interrupted)
            with pytest.raises(KeyboardInterrupt):
                generate_latents(state, z, guidance)
        assert not state.is_in_image
        found, expected = (generate_latents(s, z, GaussianMixing(1.0)) for s in (state, plain))
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("guidance", [NoGuidance(), GaussianMixing(1.0)])
@pytest.mark.parametrize("interleaving", [Stacked, partial(Stacked, vision_input=LatentInput())])
def test_a_conversation_whose_denoiser_is_interrupted_is_as_it_was(guidance, interleaving):
    model = built(interleaving)

    class Stops(Denoiser):
        def __call__(self, x, noise, log_prob):
            raise KeyboardInterrupt

    conversations = [begun(model, guidance=guidance) for _ in range(2)]
    for conversation in conversations:
        conversation.say(RED)
        conversation.generate()
        conversation.say("why?")
    conversations[0].batch.denoiser = Stops()
    with pytest.raises(KeyboardInterrupt):
        conversations[0].generate()
    conversations[0].batch.denoiser = NoDenoiser()
    assert [c.answer(3) for c in conversations] == [conversations[1].turns[-1].text] * 2
    first, second = (c.generate() for c in conversations)
    assert first.tobytes() == second.tobytes()


def test_a_text_that_is_interrupted_can_be_gone_on_with(monkeypatch):
    model = built()
    logits = []
    for is_interrupted in (True, False):
        state = GenerationState(model, 1, 40)
        with torch.no_grad():
            state.read_text([RED])
            if is_interrupted:
                with monkeypatch.context() as patch:
                    patch.setattr("pretzel.generation.state.last_valid", interrupted)
                    with pytest.raises(KeyboardInterrupt):
                        state.flush()
            logits.append([int(token) for token in write_tokens(state, 5)])
    assert logits[0] == logits[1]


# Attention temperature


def test_tempered_attention_does_not_depend_on_when_text_was_run():
    model = built(deep_layers=2)
    guidance = AttentionTemperature(LinearGuidance(1.0), 3.0, keeps_context=True)
    drawn = []
    for flushed in (False, True):
        state = GenerationState(model, 2, 60)
        with torch.no_grad():
            state.read_text([RED, "why?"])
            if flushed:
                state.flush()
            drawn.append(generate_latents(state, latents(model, 2, key="z"), guidance).u)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=1e-12)


# Texts that are not read to their ends


def test_a_text_that_is_being_written_is_ended_before_what_follows():
    model = built()
    for act in (
        lambda c: c.say("why?"),
        lambda c: c.show(Pictures.new("RGB", (4, 4))),
        lambda c: c.generate(),
        lambda c: c.answer(2),
        lambda c: c.fork(),
    ):
        for going in (Conversation.stream, Conversation.continue_freely):
            conversation = begun(model, writing=RANDOM)
            conversation.say(RED)
            stream = going(conversation, 8)
            first = next(stream)
            act(conversation)
            assert list(stream) == []
            assert [turn.kind for turn in conversation.turns[:2]] == ["say", "answer"]
            assert conversation.turns[1].text == first


def test_nothing_is_read_into_a_text_that_is_being_written():
    state = GenerationState(built(), 1, 60)
    with torch.no_grad():
        state.read_text([RED])
        writer = write_tokens(state, 4, RANDOM)
        next(writer)
        state.read_text(["why?"])
        with pytest.raises(UserError, match="text must be written before anything is read behind"):
            next(writer)
