"""Documents as sequences: layout, positions, targets, padding, dropped captions."""

import pytest
import torch

from pretzel.packing import IGNORE, Packer
from pretzel.sequence import Document, Image, Text, caption_document, question_document
from pretzel.vlm.base import SpecialTokens

PAD, BOI, EOI, END = 0, 1, 2, 3
WORDS = {"a": 10, "red": 11, "circle": 12, "shape": 13, "color": 14, "yes": 15, "no": 16}


def encode(text):
    return [WORDS[word] for word in text.split()]


@pytest.fixture
def packer():
    special = SpecialTokens(pad=PAD, begin_of_image=BOI, end_of_image=EOI, end_of_text=END)
    return Packer(encode, special, (2, 2))


def target(packed, row=0):
    return packed.targets[row].tolist()


def test_caption_and_image(packer):
    packed = packer([caption_document("a red circle")])
    assert packed.tokens[0].tolist() == [10, 11, 12, BOI, PAD, PAD, PAD, PAD, EOI]
    assert packed.is_image[0].tolist() == [False] * 4 + [True] * 4 + [False]
    assert packed.index[0].tolist() == list(range(9))
    assert packed.positions[0].tolist() == [
        [0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0],
        [4, 0, 0], [4, 0, 1], [4, 1, 0], [4, 1, 1], [5, 0, 0],
    ]  # fmt: skip
    # the caption is context; begin-of-image after it is a target, nothing of the image is
    assert target(packed) == [IGNORE, IGNORE, BOI] + [IGNORE] * 6


def test_question_and_answers(packer):
    packed = packer([question_document([("color", "red"), ("shape", "yes no")])])
    #  BOI i i i i EOI color red END shape yes no END
    assert packed.tokens[0].tolist() == [BOI, 0, 0, 0, 0, EOI, 14, 11, END, 13, 15, 16, END]
    assert target(packed) == [IGNORE] * 6 + [11, END, IGNORE, 15, 16, END, IGNORE]


def test_an_answer_right_behind_an_image_is_predicted_from_its_end(packer):
    packed = packer([Document(key="", segments=(Image(), Text(content="red", role="target")))])
    assert target(packed) == [IGNORE] * 5 + [11, END, IGNORE]


def test_image_positions_and_end_of_image_are_never_targets(packer):
    segments = (
        Text(content="a", role="target"),
        Image(),
        Image(),
        Text(content="b a", role="target"),
    )
    WORDS["b"] = 17
    packed = packer([Document(key="", segments=segments)])
    supervised = packed.targets != IGNORE
    assert not (supervised & packed.is_image).any()
    assert EOI not in packed.targets[supervised]
    assert PAD not in packed.targets[supervised]
    # both beginnings of an image are: after text, and after the end of the image before
    assert (packed.targets == BOI).sum() == 2
    assert target(packed)[1] == BOI


def test_every_target_is_the_next_token(packer):
    documents = [
        caption_document("a red circle"),
        question_document([("a color", "red"), ("a shape", "circle")]),
        Document(key="", segments=(Text(content="a", role="target"), Image(), Text(content="no"))),
    ]
    packed = packer(documents)
    supervised = packed.targets[:, :-1] != IGNORE
    assert (packed.targets[:, :-1][supervised] == packed.tokens[:, 1:][supervised]).all()
    assert (packed.targets[:, -1] == IGNORE).all()
    assert not (supervised & ~packed.is_valid[:, 1:]).any()


def test_dropped_captions_leave_a_gap_and_nothing_to_attend_to(packer):
    kept = packer([caption_document("a red circle")])
    dropped = packer([caption_document("a red circle", dropped=True)])
    assert dropped.tokens[0].tolist() == [BOI, PAD, PAD, PAD, PAD, EOI]
    assert dropped.index[0].tolist() == kept.index[0, 3:].tolist()
    assert dropped.positions[0].tolist() == kept.positions[0, 3:].tolist()
    assert target(dropped) == [IGNORE] * 6


def test_right_padding(packer):
    packed = packer([caption_document("a red circle"), caption_document("a")])
    assert packed.is_valid.sum(1).tolist() == [9, 7]
    assert packed.tokens[1].tolist() == [10, BOI, 0, 0, 0, 0, EOI, PAD, PAD]
    assert packed.index[1].tolist() == list(range(9))
    assert target(packed, 1) == [BOI] + [IGNORE] * 8


def test_left_padding_ends_all_rows_with_begin_of_image(packer):
    prompts = [Document(key="", segments=(Text(content=text),)) for text in ("a red circle", "a")]
    packed = packer(prompts, pad="left", open_image=True)
    assert packed.tokens.tolist() == [[10, 11, 12, BOI], [PAD, PAD, 10, BOI]]
    assert packed.index.tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert packed.positions[1].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_mask_is_causal_over_valid_positions(packer):
    prompts = [Document(key="", segments=(Text(content=text),)) for text in ("a red", "a")]
    mask = packer(prompts, pad="left", open_image=True).mask[:, 0]
    assert mask[0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    # padding attends to itself alone, and nothing attends to it
    assert mask[1].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_images_come_in_order_of_rows(packer):
    packed = packer([caption_document("a"), caption_document("a red circle")])
    dense = torch.zeros(2, 9)
    dense[packed.is_image] = torch.arange(8.0)
    assert dense[0, 2:6].tolist() == [0, 1, 2, 3]
    assert dense[1, 4:8].tolist() == [4, 5, 6, 7]


def test_no_documents_or_empty_ones_are_refused(packer):
    with pytest.raises(ValueError, match="at least one document, got none"):
        packer([])
    with pytest.raises(ValueError, match="document 'k' must have text or an image"):
        packer([Document(key="k", segments=(Text(content="a", role="dropped"),))])
