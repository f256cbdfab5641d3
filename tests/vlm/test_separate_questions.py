"""Turns about one image: each as if it were asked alone."""

import pytest
import torch

from pretzel.sequence.document import Document, Image, Text, question_document
from pretzel.sequence.packer import Packer
from pretzel.training.separate_questions import separate_questions
from pretzel.vlm.tiny import TinyVLM

PAIRS = [
    ("what color is the shape?", "red"),
    ("is there a circle?", "yes"),
    ("what shape is in the image?", "circle"),
]


@pytest.fixture(scope="module")
def packer(shipped: TinyVLM) -> Packer:
    return Packer(shipped.encode_text, shipped.special, (8, 8))


def states(vlm: TinyVLM, packer: Packer, document: Document, pixels: torch.Tensor) -> torch.Tensor:
    packed = packer([document])
    turns = separate_questions(packed, vlm.special, 0.0)
    embeddings = vlm.embed(packed.tokens)
    if packed.is_image.any():
        embeddings[packed.is_image] = vlm.encode_images(pixels)[0][0]
    return vlm(embeddings, turns.index, turns.mask)[0][turns.weights[0] > 0]


def test_each_turn_is_computed_as_if_alone(shipped, packer):
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = states(shipped, packer, question_document(PAIRS), pixels)
    alone = [states(shipped, packer, question_document([pair]), pixels) for pair in PAIRS]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-4)
    # it would not be so without the separation
    packed = packer([question_document(PAIRS)])
    embeddings = shipped.embed(packed.tokens)
    embeddings[packed.is_image] = shipped.encode_images(pixels)[0][0]
    mixed = shipped(embeddings, packed.index, packed.mask)[0][packed.targets[0] >= 0]
    assert (mixed - together).abs().max() > 1e-2


def test_a_caption_before_the_image_is_shared(shipped, packer):
    caption = Text(content="a red circle")
    document = Document(key="", segments=(caption, *question_document(PAIRS).segments))
    packed = packer([document])
    mask = separate_questions(packed, shipped.special, 0.0).mask[0, 0]
    last = int(packed.is_valid.sum()) - 1
    assert mask[last, : 3 + 1 + 64 + 1].all()
    assert not mask[last, 3 + 1 + 64 + 1]


def test_rows_without_an_image_stay_as_they_are(shipped, packer):
    segments = [Text(content="a red circle")]
    segments += [s for s in question_document(PAIRS).segments if not isinstance(s, Image)]
    image_row = question_document(PAIRS[:1])
    packed = packer([Document(key="", segments=tuple(segments)), image_row])
    turns = separate_questions(packed, shipped.special, 0.0)
    torch.testing.assert_close(turns.index[0], packed.index[0])
    torch.testing.assert_close(turns.mask[0], packed.mask[0])


def test_padding_is_never_attended_nor_predicted(shipped, packer):
    packed = packer([question_document(PAIRS), question_document(PAIRS[:1])])
    turns = separate_questions(packed, shipped.special, 0.5)
    count = int(packed.is_valid[1].sum())
    others = ~torch.eye(packed.tokens.shape[1], dtype=torch.bool)
    assert not (turns.mask[1, 0] & others)[:, count:].any()
    assert (turns.weights[1, count - 1 :] == 0).all()


def test_weights_tell_supervised_from_other_text(shipped, packer):
    document = Document(
        key="", segments=(Text(content="a red circle"), *question_document(PAIRS[:2]).segments)
    )
    packed = packer([document])
    turns = separate_questions(packed, shipped.special, 0.25)
    special = shipped.special

    def predicted(weight: float) -> list[int]:
        return turns.targets[0][turns.weights[0] == weight].tolist()

    first, second = (shipped.encode_text(question) for question, _ in PAIRS[:2])
    answers = [
        token for _, a in PAIRS[:2] for token in (*shipped.encode_text(a), special.end_of_text)
    ]
    assert predicted(1.0) == [special.begin_of_image, *answers]
    # the first word of a caption or of a turn has no text before it
    assert predicted(0.25) == [*shipped.encode_text("red circle"), *first[1:], *second[1:]]
