"""POPE's and MME's scores, against values computed by hand."""

import pytest

from callbacks import MMEScoring, POPEScoring
from callbacks.vqa.questions import AnsweredQuestion
from callbacks.vqa.yes_no import COGNITION, PERCEPTION


def answered(truth, answer, kind, key=""):
    return AnsweredQuestion(key=key, question="", truth=truth, answer=answer, question_type=kind)


@pytest.mark.parametrize(
    ("answer", "is_yes"),
    [
        ("yes", True),
        ("No, there is no dog.", False),
        ("There is not.", False),
        ("a dog", True),  # whatever is not denied is a yes
        ("Yes. No car", True),  # the first sentence alone counts
        ("nothing", True),
        ("", True),
    ],
)
def test_an_answer_is_no_by_one_of_three_words(answer, is_yes):
    assert POPEScoring().is_right(answered("yes", answer, "")) == is_yes
    assert POPEScoring().is_right(answered("no", answer, "")) != is_yes


def test_pope():
    rows = [
        answered("yes", "Yes", "random"),  # hit
        answered("yes", "no", "random"),  # miss
        answered("no", "yes", "random"),  # false alarm
        answered("no", "No.", "random"),
        answered("yes", "yes", "adversarial"),
        answered("no", "yes", "adversarial"),
    ]
    assert POPEScoring().values(rows, "pope") == pytest.approx(
        {
            "pope_accuracy": 3 / 6,
            "pope_precision": 2 / 4,
            "pope_recall": 2 / 3,
            "pope_f1": 4 / 7,
            "pope_yes_ratio": 4 / 6,
            "pope_accuracy_random": 2 / 4,
            "pope_precision_random": 1 / 2,
            "pope_recall_random": 1 / 2,
            "pope_f1_random": 1 / 2,
            "pope_yes_ratio_random": 2 / 4,
            "pope_accuracy_adversarial": 1 / 2,
            "pope_precision_adversarial": 1 / 2,
            "pope_recall_adversarial": 1,
            "pope_f1_adversarial": 2 / 3,
            "pope_yes_ratio_adversarial": 1,
        }
    )
    never = POPEScoring().values([answered("no", "no", "random")], "pope")
    assert (never["pope_accuracy"], never["pope_precision"], never["pope_f1"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [("Yes, it is", "yes"), ("no.", "no"), ("N", "no"), ("y", "yes"), ("not", "no"), ("maybe", "")],
)
def test_an_answer_of_mme_is_in_its_first_letters(answer, said):
    for truth in ("yes", "no"):
        assert MMEScoring().is_right(answered(truth, answer, "")) == (truth == said)


def test_mme():
    rows = [
        answered("yes", "Yes", "existence", "a"),
        answered("no", "No", "existence", "a"),
        answered("yes", "Yes", "existence", "b"),
        answered("no", "it is", "existence", "b"),
        answered("yes", "no", "count", "c"),
        answered("no", "no", "count", "c"),
    ]
    assert MMEScoring().values(rows, "mme") == pytest.approx(
        {
            "mme_accuracy": 4 / 6,
            "mme_accuracy_plus": 1 / 3,
            "mme_category_existence": 100 * (3 / 4 + 1 / 2),
            "mme_category_count": 100 * (1 / 2 + 0),
        }
    )
    assert MMEScoring().values([], "mme") == {}
    whole = [
        answered(truth, "yes" if kind == "OCR" else truth, kind, kind)
        for kind in (*COGNITION, *(one if one != "ocr" else "OCR" for one in PERCEPTION))
        for truth in ("yes", "no")
    ]
    values = MMEScoring().values(whole, "mme")
    assert (values["mme_cognition"], values["mme_perception"]) == (800, 9 * 200 + 50)
