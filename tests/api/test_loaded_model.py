"""What a loaded model does: images, answers, likelihoods, latents."""

import numpy as np
import pytest
import torch
from PIL import Image

import pretzel
from datamodules import Shards
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.tar_shard import RawSample
from pretzel.cli.sample.command import main as sample
from pretzel.errors import UserError
from pretzel.media.image_input import as_pixels
from pretzel.sampling import Jacobi, LinearGuidance, NoGuidance
from pretzel.sequence.document import DocumentBatch, caption_document
from pretzel.testing import perturb

RED, BLUE = "a red circle", "a blue square"


@pytest.fixture(scope="module")
def model(run):
    model = pretzel.load(run)
    perturb(model.module)
    return model


def picture(width=8, height=8, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def arrays(pictures):
    return [np.asarray(one) for one in pictures]


def test_images_do_not_depend_on_the_batch(model):
    together = arrays(model.generate([RED, BLUE, RED], seed=3))
    assert [image.shape for image in together] == [(8, 8, 3)] * 3
    assert (together[0] != together[2]).any()  # the second of its prompt
    alone = arrays(model.generate(RED, num=2, seed=3, batch_size=1))
    np.testing.assert_array_equal(alone[0], together[0])
    np.testing.assert_array_equal(alone[1], together[2])
    assert (arrays(model.generate(RED, seed=4))[0] != alone[0]).any()


def test_images_are_those_of_pretzel_sample(run, config, tmp_path):
    files = [word for file in config for word in ("-c", str(file))]
    checkpoint = ["--ckpt_path", str(run / "checkpoints/last.ckpt")]
    wanted = ["--prompt", RED, "--num", "2", "--seed", "5", "--model.guidance.weight", "1.5"]
    assert sample([*files, *checkpoint, *wanted, "--out", str(tmp_path / "out")]) == 0
    ours = pretzel.load(run).generate(RED, num=2, seed=5, guidance=1.5)
    for name, image in zip(("00000.png", "00001.png"), ours, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / name)), image)


def test_guidance_and_sampler_can_be_chosen(model):
    configured = model.module.guidance.weight
    plain = arrays(model.generate(RED, seed=0))[0]
    np.testing.assert_array_equal(plain, model.generate(RED, seed=0, guidance=configured)[0])
    assert (arrays(model.generate(RED, seed=0, guidance=NoGuidance()))[0] != plain).any()
    assert (arrays(model.generate(RED, seed=0, guidance=LinearGuidance(3.0)))[0] != plain).any()
    assert model.module.guidance.weight == configured
    exact = model.generate(RED, seed=0, sampler=Jacobi(tolerance=0.0))[0]
    assert np.abs(np.asarray(exact).astype(int) - plain).max() <= 1


def test_answers_are_one_or_several(model):
    first, second = picture(seed=1), picture(seed=2)
    answer = model.ask(first, "what color is it?", max_tokens=3)
    assert isinstance(answer, str)
    questions = ["what color is it?", "is it a circle?"]
    several = model.ask(first, questions, max_tokens=3)
    assert several[0] == answer
    pairs = model.ask([second, first], questions[::-1], max_tokens=3, batch_size=1)
    assert pairs[1] == answer
    one_for_all = model.ask([second, first], questions[0], max_tokens=3)
    assert one_for_all[1] == answer


def test_likelihoods_are_those_of_the_module(model):
    images = [picture(seed=1), picture(seed=2)]
    found = model.log_prob(images, [RED, BLUE])
    assert found.shape == (2,)
    torch.testing.assert_close(found[1:], model.log_prob(images[1], BLUE))  # another batch
    batch = DocumentBatch(
        documents=tuple(caption_document(text, key="k") for text in (RED, BLUE)),
        images=as_pixels(images, 8),
    )
    with torch.no_grad():
        expected = model.module.log_prob(batch).log_prob  # by other noise
    assert (found - expected).abs().max() < 0.5 * expected.abs().max()
    # the same noise beside whatever text, so that texts can be compared
    right, again, other = model.log_prob(images[0], [RED, RED, BLUE])
    assert right == again
    assert right != other
    assert model.log_prob(images[0]).shape == (1,)
    (found.requires_grad_() * 2).sum().backward()  # an ordinary tensor


def test_latents_of_pixels_are_exact(model):
    image = picture()
    latents = model.encode(image)
    assert latents.shape == (1, 4, 48)
    np.testing.assert_array_equal(model.decode(latents)[0], image)


def test_a_conversation_takes_images_of_any_size(model):
    conversation = model.conversation(seed=1)
    conversation.say(RED)
    conversation.show(picture(20, 10))
    assert isinstance(conversation.answer(max_tokens=2), str)
    assert isinstance(conversation, pretzel.Conversation)


@pytest.mark.parametrize("size", [(8, 8), (20, 11), (5, 9), (40, 40)])
def test_images_are_prepared_as_in_training(size, tmp_path):
    image = picture(*size)
    image.save(tmp_path / "x.png")
    decoder = Shards("a.tar").decoder(PictureDecoder(image_size=8, upscale=True))
    members = {"png": (tmp_path / "x.png").read_bytes(), "txt": b"x"}
    trained_on = decoder(RawSample(shard="s", key="k", members=members)).image
    as_bytes = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    forms = [image, tmp_path / "x.png", str(tmp_path / "x.png"), as_bytes, as_bytes / 127.5 - 1]
    prepared = as_pixels(forms, 8)
    for one in prepared:
        torch.testing.assert_close(one, trained_on, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m, p: m.ask(p / "none.png", "why?"), r"none\.png: .* an image \(no such file\)"),
        (lambda m, p: m.encode(str(p / "text.png")), r"text\.png: cannot be read as an image"),
        (lambda m, p: m.encode(torch.zeros(4, 8, 8)), r"a tensor \[3, height, width\], got \[4"),
        (lambda m, p: m.encode(torch.full((3, 8, 8), 200.0)), r"in \[-1, 1\], got 200 to 200"),
        (lambda m, p: m.encode(torch.full((3, 8, 8), torch.nan)), r"in \[-1, 1\], got nan"),
        (lambda m, p: m.encode(torch.zeros(3, 8, 8).int()), r"bytes, got torch\.int32"),
        (lambda m, p: m.decode(torch.zeros(1, 2, 5)), r"latents must be \[n, .*got \[1, 2, 5\]"),
        (lambda m, p: m.encode([]), r"images must be at least one"),
        (lambda m, p: m.log_prob([picture()] * 2, ["a"] * 3), r"texts must be .*got 3 for 2"),
        (lambda m, p: m.ask(picture(), []), r"questions must be one, .*got 0 for"),
        (lambda m, p: m.generate("a", num=0), r"num must be at least 1, got 0"),
        (lambda m, p: m.generate("a", batch_size=0), r"batch_size must be at least 1, got 0"),
        (lambda m, p: m.generate("a", guidance=-1.0), r"weight must be 0 or positive, got -1"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(model, tmp_path, call, expected):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=expected) as refused:
        call(model, tmp_path)
    assert isinstance(refused.value, UserError)
    assert "\n" not in str(refused.value)
