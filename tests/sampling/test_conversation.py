"""Conversations: text, images and answers in one sequence."""

import numpy as np
import pytest
import torch
from PIL import Image

from pretzel.errors import UserError
from pretzel.generation.answers import answer
from pretzel.generation.conversation import Conversation
from pretzel.generation.conversation_batch import ConversationBatch, conversations_with
from pretzel.generation.images import sample_images
from pretzel.generation.writing import Writing
from pretzel.interleave import Stacked, TextPrefix
from pretzel.media.image_input import as_pixels
from pretzel.sampling.denoisers import NoDenoiser, ScoreDenoiser
from pretzel.sampling.guidance import GaussianMixing, NoGuidance
from pretzel.sampling.samplers import Sequential
from pretzel.sequence.document import Document, Text
from pretzel.sequence.document import Image as Images
from pretzel.tarflow import TarFlow
from pretzel.testing import Case, tiny_pretzel

RED = "a red circle"
RANDOM = Writing(temperature=2.0)


def begun(model, key="", **settings):
    return Conversation(ConversationBatch(model, [key], **settings))


def built(interleaving=Stacked):
    return Case(factory=lambda: tiny_pretzel(interleaving), perturbed=True).build()


def picture(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def as_array(shown):
    return np.asarray(shown).astype(int)


@pytest.mark.parametrize("denoiser", [NoDenoiser(), ScoreDenoiser()])
def test_the_first_image_is_that_of_the_prompt(denoiser):
    model, guidance = built(), GaussianMixing(weight=1.0)
    conversation = begun(model, guidance=guidance, denoiser=denoiser, key=RED, seed=3)
    conversation.say(RED)
    z = model.sample_noise([f"{RED}#0"], 3, "draw")
    expected = sample_images(model, [RED], z, guidance, denoiser, Sequential())
    pixels = ((expected.pixels[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.array_equal(as_array(conversation.generate()), pixels)
    assert conversation.work == [expected.work]


def test_answers_are_those_to_questions_about_the_image():
    model = built()
    conversation = begun(model, key="k")
    conversation.show(picture())
    conversation.say("what shape is it?")
    x = model.encode(
        as_pixels([picture()], model.latent.image_size), model.sample_noise(["k#0"], 0, "show")
    )
    (expected,) = answer(model, x, torch.tensor([0]), ["what shape is it?"], max_tokens=5)
    assert conversation.answer(5) == expected


def test_a_conversation_goes_on_and_remembers():
    model = built()

    def talk(first):
        conversation = begun(model, guidance=GaussianMixing(1.0), denoiser=ScoreDenoiser())
        conversation.say(first)
        conversation.generate()
        conversation.say("what shape is it?")
        conversation.answer(3)
        conversation.say("now make it blue")
        conversation.generate()
        return conversation.turns

    turns = talk(RED)
    assert [turn.kind for turn in turns] == ["say", "generate", "say", "answer", "say", "generate"]
    again, other = talk(RED), talk("why?")
    assert np.array_equal(as_array(turns[-1].picture), as_array(again[-1].picture))
    assert not np.array_equal(as_array(turns[-1].picture), as_array(other[-1].picture))


def test_text_is_streamed_in_pieces_that_make_the_answer():
    conversation = begun(built(), writing=RANDOM)
    conversation.say("what is it?")
    stream = conversation.stream(8)
    pieces = [next(stream)]
    assert not torch.is_inference_mode_enabled()  # the caller's code is left alone
    pieces += stream
    assert len(pieces) > 1
    assert "".join(pieces) == conversation.turns[-1].text


def test_an_answer_that_is_not_read_to_its_end_is_ended_there():
    conversation = begun(built(), writing=RANDOM)
    conversation.say("what is it?")
    stream = conversation.stream(8)
    first = next(stream)
    stream.close()
    assert conversation.turns[-1].text == first
    state = conversation.batch.state
    with torch.inference_mode():
        state.flush()
    asked = len(conversation.batch.model.vlm.encode_text("what is it?"))
    assert state.next_index.item() == asked + 2  # a token and end-of-text


def test_forks_read_nothing_again_and_do_not_meet():
    model = built()
    conversation = begun(model)
    conversation.show(picture())
    ran = []
    hook = model.vlm.register_forward_pre_hook(lambda _, args: ran.append(int(args[1].min())))
    answers = []
    for question in ("what color is the shape?", "is it a circle?"):
        fork = conversation.fork(question)
        fork.say(question)
        answers.append(fork.answer(3))
    hook.remove()
    assert min(ran) == model.latent.num_positions + 2  # behind the image
    alone = begun(model)
    alone.show(picture())
    alone.say("is it a circle?")
    assert alone.answer(3) == answers[1]
    assert len(conversation.turns) == 1


def begins_image_first(monkeypatch, model):
    """Let the model write begin-of-image, then text."""
    begin = model.vlm.special.begin_of_image
    logits = type(model.interleaving).logits

    def biased(self, text, vlm):
        found = logits(self, text, vlm)
        found[..., begin] += 1e6
        return found

    monkeypatch.setattr(type(model.interleaving), "logits", biased)


def test_it_may_begin_images_itself(monkeypatch):
    model = built()
    begins_image_first(monkeypatch, model)
    conversation = begun(model)
    conversation.say(RED)
    found = list(conversation.continue_freely(max_tokens=4, max_images=1))
    assert isinstance(found[0], Image.Image)
    assert all(isinstance(piece, str) for piece in found[1:])
    kinds = [turn.kind for turn in conversation.turns]
    assert kinds == ["say", "generate", "answer"]
    # the image is the one that is drawn when asked for: begin-of-image is read once
    asked = begun(model)
    asked.say(RED)
    assert np.array_equal(as_array(asked.generate()), as_array(found[0]))


def test_what_cannot_be_done_is_said():
    model = built()
    with pytest.raises(UserError, match="text must follow a text or an image"):
        begun(model).answer()
    prefix = begun(built(TextPrefix))
    prefix.say(RED)
    prefix.generate()
    with pytest.raises(UserError, match="answers questions, got TextPrefix"):
        prefix.answer()
    with pytest.raises(UserError, match="TextPrefix models no image behind an image"):
        prefix.generate()
    short = begun(model, max_length=6)
    short.say(RED)
    with pytest.raises(UserError, match="must fit into max_length of its caches, 6 positions"):
        short.generate()


def test_a_flow_by_itself_does_not_converse():
    class Module:
        pretzel = TarFlow.__new__(TarFlow)
        guidance, sampler, denoiser, seed = NoGuidance(), Sequential(), NoDenoiser(), 0

    with pytest.raises(UserError, match=r"must be a model of text and images .* got TarFlow"):
        conversations_with(Module(), [""])


def test_the_density_of_a_drawing_is_behind_the_tokens_that_were_written():
    model = built()
    vlm = model.vlm
    words = [t for t in range(vlm.vocab_size) if vlm.decode_text([t]).startswith("##")][:2]
    steps = iter([*words, vlm.special.end_of_text])

    class Scripted(Writing):
        def choose(self, logits, uniform=None):
            return torch.tensor([next(steps)])

    class Asks(NoDenoiser):
        def __call__(self, x, sigma, log_prob):
            found.append((x, log_prob(x)))
            return x

    found = []
    conversation = begun(model, writing=Scripted(), denoiser=Asks())
    conversation.say(RED)
    assert vlm.encode_text(conversation.answer()) != words  # what is read again is another text
    conversation.generate()
    ((x, density),) = found
    said, told = vlm.encode_text(RED), [*words, vlm.special.end_of_text]
    model.packer.encode_text = lambda numbers: [int(number) for number in numbers.split()]
    texts = (Text(content=" ".join(map(str, ids))) for ids in (said, told))
    document = Document(key="", segments=(*texts, Images()))
    with torch.no_grad():
        expected = model.score([document], x.clone()).log_prob
    torch.testing.assert_close(density.detach(), expected, rtol=0, atol=1e-9)


def test_a_text_of_given_tokens_is_read_as_these():
    model = built()
    text = Text(content=RED, tokens=(7, 8, 9))
    packed = model.packer([Document(key="", segments=(text,))])
    assert packed.tokens.tolist() == [[7, 8, 9]]
