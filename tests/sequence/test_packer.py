"""Documents as sequences: layout, positions, targets, padding, what is dropped, shared rows."""

import pytest
import torch

from pretzel.sequence.document import (
    Document,
    Dropped,
    Image,
    Text,
    caption_document,
    question_document,
    without_past,
)
from pretzel.sequence.masks import document_mask
from pretzel.sequence.packed_batch import IGNORE
from pretzel.sequence.packer import Packer
from pretzel.sequence.row_builder import first_fit
from pretzel.sequence.special_tokens import SpecialTokens

PAD, BOI, EOI, END = 0, 1, 2, 3
WORDS = {"a": 10, "red": 11, "circle": 12, "shape": 13, "color": 14, "yes": 15, "no": 16, "b": 17}


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


def words(content, role="context"):
    return Text(content=content, role=role)


STORY = Document(
    key="story",
    segments=(
        words("a red circle"),
        Image(),
        words("shape"),
        words("circle", "target"),
        words("a"),
        Image(),
        words("yes", "target"),
    ),
)


def test_an_interleaved_document(packer):
    packed = packer([STORY])
    image = [BOI, PAD, PAD, PAD, PAD, EOI]
    assert packed.tokens[0].tolist() == [
        10, 11, 12, *image, 13, 12, END, 10, *image, 15, END,
    ]  # fmt: skip
    assert packed.index[0].tolist() == list(range(21))
    # the request "a" ends in a begin-of-image that is a target; the second image's own follow
    ignored = [IGNORE] * 5
    assert target(packed) == [
        IGNORE, IGNORE, BOI, *ignored, IGNORE, 12, END, IGNORE, BOI, *ignored, 15, END, IGNORE,
    ]  # fmt: skip
    places = packed.positions[0, :, 0].tolist()
    assert places == [0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8, 9, 10, 11, 11, 11, 11, 12, 13, 14]
    assert packed.positions[0, 14:18, 1:].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_an_image_in_front_is_predicted_by_nothing(packer):
    assert BOI not in target(packer([Document(key="", segments=(Image(), words("no")))]))


def test_empty_text_takes_no_position_but_an_empty_answer_ends(packer):
    packed = packer([Document(key="", segments=(words(""), Image(), words("", "target")))])
    assert packed.tokens[0].tolist() == [BOI, 0, 0, 0, 0, EOI, END]
    assert target(packed) == [IGNORE] * 5 + [END, IGNORE]


def test_text_alone_and_several_supervised_turns(packer):
    turns = (words("shape"), words("circle", "target"), words("color"), words("red", "target"))
    packed = packer([Document(key="", segments=turns)])
    assert packed.tokens[0].tolist() == [13, 12, END, 14, 11, END]
    assert target(packed) == [12, END, IGNORE, 11, END, IGNORE]


@pytest.mark.parametrize("image", [0, 1])
def test_an_image_without_its_past_keeps_its_place_and_sees_nothing(packer, image):
    whole, cut = packer([STORY]), packer([without_past(STORY, image)])
    start = (3, 13)[image]
    assert cut.tokens[0].tolist() == whole.tokens[0, start:].tolist()
    assert cut.index[0].tolist() == whole.index[0, start:].tolist()
    assert cut.positions[0].tolist() == whole.positions[0, start:].tolist()
    assert target(cut) == target(whole)[start:]
    assert not cut.mask[0, 0, 0, 1:].any()
    assert without_past(STORY, image).num_images == 2 - image


def test_a_past_without_an_image_is_that_of_a_dropped_caption(packer):
    cut = packer([without_past(caption_document("a red circle"), 0)])
    dropped = packer([caption_document("a red circle", dropped=True)])
    assert cut.index.tolist() == dropped.index.tolist()
    assert cut.positions.tolist() == dropped.positions.tolist()


def test_dropping_the_past_twice_drops_it_once(packer):
    twice = without_past(without_past(STORY, 0), 1)
    assert twice == without_past(STORY, 1)
    assert without_past(twice, 0) == twice
    assert isinstance(twice.segments[0], Dropped)


def test_an_image_that_a_document_lacks_is_refused():
    with pytest.raises(ValueError, match="2 images of document 'story', counted from 0, got 2"):
        without_past(STORY, 2)


def test_nothing_behind_a_gap_is_predicted_from_before_it(packer):
    request = words("a", "dropped")
    packed = packer([Document(key="", segments=(Image(), request, Image()))])
    assert packed.tokens[0].tolist() == [BOI, 0, 0, 0, 0, EOI, BOI, 0, 0, 0, 0, EOI]
    assert target(packed) == [IGNORE] * 12
    # only the request is hidden: the image before stays visible
    assert packed.mask[0, 0, 6, :7].all()


def test_the_index_over_an_image_may_be_that_of_the_model():
    special = SpecialTokens(pad=PAD, begin_of_image=BOI, end_of_image=EOI, end_of_text=END)
    packer = Packer(encode, special, (2, 2), image_index=([0, 0, 0, 0], 2))
    assert packer([STORY]).index[0].tolist() == [
        0, 1, 2, 3, 4, 4, 4, 4, 6, 7, 8, 9, 10, 11, 12, 12, 12, 12, 14, 15, 16,
    ]  # fmt: skip
    assert packer([without_past(STORY, 1)]).index[0, 0] == 11


# Several documents in a row

BATCH = (
    caption_document("a red circle"),
    STORY,
    Document(key="", segments=(words("shape"), words("circle", "target"))),
    question_document([("color", "red")]),
    caption_document("a", dropped=True),
)


def test_longest_first_into_the_first_row_with_room():
    assert first_fit([4, 8, 1, 4, 2, 1], 10) == [[0, 2, 3, 5], [1, 4]]
    assert first_fit([3, 12, 3], 10) == [[0, 2], [1]]
    assert first_fit([5], 5) == [[0]]


def test_shared_rows_hold_what_rows_of_one_hold(packer):
    alone, packed = packer(BATCH), packer.fill(BATCH, 23)
    assert packed.tokens.shape == (3, 21)
    for number in range(len(BATCH)):
        own, there = alone.is_valid[number], packed.document == number
        for name in ("tokens", "is_image", "is_valid", "index", "positions", "targets"):
            expected = getattr(alone, name)[number][own]
            assert getattr(packed, name)[there].tolist() == expected.tolist(), name
    assert ((packed.document == -1) == ~packed.is_valid).all()


def test_documents_of_a_row_do_not_see_each_other(packer):
    packed = packer.fill(BATCH, 23)
    mask = packed.mask[:, 0]
    for row, documents in zip(mask, packed.document, strict=True):
        for query, key in row.nonzero().tolist():
            assert key <= query
            assert documents[query] == documents[key]
            assert documents[query] >= 0 or query == key
    assert packed.block_mask is None
    own = document_mask(packed.document) & packed.is_valid[:, None, :, None]
    assert torch.equal(own, packed.mask & packed.is_valid[:, None, :, None])


def test_places_are_those_of_the_documents_in_order(packer):
    alone, packed = packer(BATCH), packer.fill(BATCH, 23)
    # Documents 2 and 3 share the first row, before the images of document 1.
    assert packed.document[:, 0].tolist() == [0, 1, 4]
    for name in ("is_image", "is_valid"):
        expected = alone.index.flatten()[alone.places(getattr(alone, name))]
        found = packed.index.flatten()[packed.places(getattr(packed, name))]
        assert found.tolist() == expected.tolist()
    expected, found = (
        batch.targets.flatten()[batch.places(batch.targets != IGNORE)] for batch in (alone, packed)
    )
    assert found.tolist() == expected.tolist()


def test_a_document_longer_than_a_row_has_one_of_its_own(packer):
    packed = packer.fill(BATCH, 9)
    assert packed.tokens.shape[1] == 21
    assert (packed.document == 1).any(dim=1).sum() == 1
    assert set(packed.document[(packed.document == 1).any(dim=1)].flatten().tolist()) == {1}


def test_shared_rows_refuse_what_rows_of_one_refuse(packer):
    with pytest.raises(ValueError, match="at least one document, got none"):
        packer.fill([], 9)
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        packer.fill(BATCH, 0)


def test_the_null_context_of_a_second_image_is_begin_of_image_alone(packer):
    past = Document(key="", segments=without_past(STORY, 1).segments[:1])
    packed = packer([past], pad="left", open_image=True)
    assert packed.tokens.tolist() == [[BOI]]
    assert packed.index.tolist() == [[13]]
    assert packed.positions.tolist() == [[[10, 0, 0]]]
