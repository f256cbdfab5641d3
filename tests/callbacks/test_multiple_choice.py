"""MMBench's and SEED-Bench's scores, against values computed by hand."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import LightningModule

from callbacks import MMBenchScoring, MMEScoring, OwnChoices, POPEScoring, SEEDBenchScoring
from callbacks.vqa.multiple_choice import chosen
from callbacks.vqa.questions import AnsweredQuestion
from pretzel.errors import UserError

CHOICES = ("a teddy bear", "a rabbit", "a cat", "bear")


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("B", 1),
        ("(C)", 2),
        ("The answer is D.", 3),
        ("b", None),  # no letter, and no choice
        ("A or B", None),
        ("E", None),
        ("a rabbit", 1),
        ("Rabbit", None),  # "a rabbit" is not in it
        ("It is A RABBIT", 0),  # as published: the letter stands alone
        ("a teddy bear", None),  # two choices are in it
        ("bear", 3),
        ("", None),
        ("a cat " * 20, None),  # much longer than the choices
    ],
)
def test_which_choice_an_answer_names(answer, place):
    assert chosen(answer, CHOICES) == place


def rotations(key, truths, answers, kind="ocr", ability="fine"):
    return [
        AnsweredQuestion(
            key=key, question="?", truth=truth, answer=answer, choices=CHOICES[:3],
            question_type=kind, answer_type=ability,
        )
        for truth, answer in zip(truths, answers, strict=True)
    ]  # fmt: skip


def test_mmbench_counts_questions_of_which_all_rotations_are_right():
    rows = [
        *rotations("1", "ABC", ["A", "B.", "a cat"]),
        *rotations("2", "BAC", ["B", "A", "A"], kind="image topic", ability="coarse"),
        *rotations("3", "C", ["?"]),
    ]
    assert MMBenchScoring().values(rows, "mmbench") == pytest.approx(
        {
            "mmbench": 1 / 3,
            "mmbench_vanilla": 2 / 3,
            "mmbench_rotations": 5 / 7,
            "mmbench_category_ocr": 1 / 2,
            "mmbench_ability_fine": 1 / 2,
            "mmbench_category_image_topic": 0,
            "mmbench_ability_coarse": 0,
        }
    )
    assert MMBenchScoring().values([], "mmbench") == {}


def seed(answer, truth="One", kind="Instances Counting", choices=("One", "Two", "A", "B")):
    return AnsweredQuestion(
        key="a", question=kind, truth=truth, answer=answer, choices=choices, question_type=kind
    )


def test_seed_bench():
    rows = [
        seed("One"), seed("A"), seed("Two"), seed("A", truth="A"),  # the third choice
        seed("I see one", kind="Text Understanding", choices=("One", "Two", "C", "D")),
    ]  # fmt: skip
    assert SEEDBenchScoring().values(rows, "seed_bench") == pytest.approx(
        {
            "seed_bench": 3 / 5,
            "seed_bench_type_instances_counting": 2 / 4,
            "seed_bench_type_text_understanding": 1,
        }
    )


def test_questions_of_another_kind_are_refused():
    for scoring, right, wrong, rule in [
        (MMBenchScoring(), seed("", truth="D"), seed("", truth="E"), "a letter as the answer"),
        (SEEDBenchScoring(), seed(""), seed("", choices=()), r"has 'One' among \[\]"),
        (POPEScoring(), seed("", truth="no"), seed(""), "must be yes or no, that of sample 'a'"),
        (MMEScoring(), seed("", truth="yes"), seed(""), "must be yes or no, .* is 'One'"),
    ]:
        scoring.check([right])
        with pytest.raises(UserError, match=rf"{type(scoring).__name__}: .*{rule}"):
            scoring.check([right, wrong])


class Scorer(LightningModule):
    """Likes a choice by the place of its last letter in the alphabet, and notes what is asked."""

    def __init__(self):
        super().__init__()
        self.calls = []

    can_answer = True

    def choice_log_probs(self, images, questions, keys, choices, *, per_token):
        self.calls.append((images.flatten().tolist(), questions, keys, choices, per_token))
        return torch.tensor([[float(ord(c[-1])) for c in choices] for _ in questions])


def test_each_question_is_answered_by_the_likeliest_of_its_own_choices():
    asked = [seed("", kind=k, choices=c) for k, c in (("x", CHOICES), ("y", ("z", "b")),
                                                      ("w", CHOICES))]  # fmt: skip
    images, scorer = torch.arange(3.0)[:, None], Scorer()
    assert OwnChoices(per_token=True).answer(scorer, images, asked) == ["a rabbit", "z", "a rabbit"]
    assert scorer.calls == [
        ([0, 2], ["x", "w"], ["a", "a"], [*CHOICES], True),
        ([1], ["y"], ["a"], ["z", "b"], True),
    ]
    assert OwnChoices(letters=True).answer(scorer, images, asked) == ["D", "B", "D"]
    assert OwnChoices().describe() == (
        "likeliest of the texts of each question's choices, sum over tokens"
    )
    with pytest.raises(UserError, match=r"OwnChoices: questions must have choices.*'a' has none"):
        OwnChoices().answer(scorer, images[:1], [replace(asked[0], choices=())])
