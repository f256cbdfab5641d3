"""VQAv2's normalisation and soft accuracy, by cases written after its published rules and code."""

import pytest

from callbacks.vqa.normalisation import normalise
from callbacks.vqa.questions import AnsweredQuestion
from callbacks.vqa.scoring import SoftAccuracy, group_of, soft_accuracy


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        # lower case, space
        ("Yes", "yes"),
        (" dark\n red\t", "dark red"),
        # periods, but in decimals
        ("Yes.", "yes"),
        ("U.S.A.", "usa"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("5.", "5"),
        # number words and articles
        ("Two", "2"),
        ("none", "0"),
        ("ten dogs", "10 dogs"),
        ("eleven", "eleven"),
        ("the cat and a dog", "cat and dog"),
        ("an apple", "apple"),
        ("A", ""),
        # contractions
        ("dont", "don't"),
        ("It's", "it's"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),  # two are missing
        ("oclock", "o'clock"),
        ("y'alld've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("lets", "lets"),
        ("shes", "shes"),
        ("Im", "im"),
        # apostrophes and colons stay
        ("girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        # punctuation is a space, beside a space it is nothing
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("black, white/red", "black white red"),
        ("ice-cream and pop- corn", "icecream and pop corn"),  # one beside a space counts for all
        ("yes!", "yes"),
        ("what?no", "what no"),
        # commas between digits, which take all punctuation of the answer with them
        ("100,978", "100978"),
        ("1,000-2,000", "10002000"),
        ("1, 2", "1 2"),
        ("-5", "5"),
        # the order: punctuation first, then number words, articles, contractions
        ("one-way", "1 way"),
        ("the-end", "end"),
        ("(dont)", "don't"),
        ("", ""),
    ],
)
def test_normalised_as_published(answer: str, expected: str) -> None:
    assert normalise(answer) == expected
    # but for what one pass puts together: "the-" beside a space, periods
    assert normalise(normalise(answer)) == normalise(answer)


@pytest.mark.parametrize(
    ("count", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_soft_accuracy_of_ten_answers(count: int, expected: float) -> None:
    """Of c equal answers: (c min((c - 1) / 3, 1) + (10 - c) min(c / 3, 1)) / 10."""
    answers = ["Red."] * count + [f"other {number}" for number in range(10 - count)]
    assert soft_accuracy("red", answers) == pytest.approx(expected)
    assert soft_accuracy("the red", answers[::-1]) == pytest.approx(expected)


def test_soft_accuracy_is_the_mean_over_all_subsets_of_nine() -> None:
    answers = ["2", "two", "2", "3", "three", "many", "a lot", "Lots", "lots!", "lots"]
    for given in ("Two", "3.", "lots", "many", "4"):
        subsets = [answers[:left] + answers[left + 1 :] for left in range(10)]
        scores = [
            min(sum(normalise(one) == normalise(given) for one in subset) / 3, 1)
            for subset in subsets
        ]
        assert soft_accuracy(given, answers) == pytest.approx(sum(scores) / 10)


def test_ten_equal_answers_are_normalised_too() -> None:
    """The published code compares them as they are, against its own rules."""
    assert soft_accuracy("Yes.", ["yes"] * 10) == 1
    assert soft_accuracy("zero", ["none"] * 10) == 1


def test_one_answer_is_exact_match_and_few_can_be_all_right() -> None:
    assert soft_accuracy("Yes", ["yes"]) == 1
    assert soft_accuracy("no", ["yes"]) == 0
    assert soft_accuracy("a", ["a", "a"]) == soft_accuracy("b", ["b"] * 3) == 1
    assert soft_accuracy("b", ["b", "c"]) == 0.5  # one of the two is left out
    assert soft_accuracy("b", ["b", "c", "d"]) == pytest.approx(1 / 3)


def asked(truth: str, answer: str, **fields: object) -> AnsweredQuestion:
    return AnsweredQuestion(key="", question="", truth=truth, answer=answer, **fields)


@pytest.mark.parametrize(
    ("truth", "answer_type", "expected"),
    [
        ("Yes", "", "yes_no"),
        ("no.", "", "yes_no"),
        ("two", "", "number"),
        ("none", "", "number"),
        ("1,000", "", "number"),
        ("2.5", "", "number"),
        ("2 dogs", "", "other"),
        ("red", "", "other"),
        ("yes", "other", "other"),  # the data has the last word
        ("red", "yes/no", "yes_no"),
        ("Two", "Number", "number"),
        ("yes", "unanswerable", "yes_no"),
    ],
)
def test_groups_are_formed_after_normalisation(truth, answer_type, expected) -> None:
    assert group_of(asked(truth, "", answer_type=answer_type)) == expected


def test_groups_without_numbers() -> None:
    rows = [("yes", "Yes"), ("no", "red"), ("red", "red"), ("red", "yes"), ("red", "Red.")]
    answered = [asked(truth, answer) for truth, answer in rows]
    assert SoftAccuracy().values(answered, "x") == {
        "x": 3 / 5,
        "x_exact": 3 / 5,
        "x_yes_no": 1 / 2,
        "x_open": 2 / 3,
    }
    assert "x_open" not in SoftAccuracy().values(answered[:2], "x")


def test_groups_with_numbers_types_and_many_answers() -> None:
    answered = [
        asked("2", "two", answers=("2", "two", "2", "3")),
        asked("red", "maroon", answers=("red", "red", "maroon", "brown")),
        asked("yes", "yes", answer_type="yes/no", question_type="is there"),
        asked("red", "red", answer_type="other", question_type="what color is the"),
        asked("cat", "dog", answer_type="unsuitable", question_type="what color is the"),
    ]
    assert SoftAccuracy().values(answered, "vqa") == pytest.approx(
        {
            "vqa": (3 / 4 + 1 / 4 + 1 + 1 + 0) / 5,
            "vqa_exact": 3 / 5,
            "vqa_yes_no": 1,
            "vqa_open": (3 / 4 + 1 / 4 + 1 + 0) / 4,
            "vqa_number": 3 / 4,
            "vqa_other": (1 / 4 + 1 + 0) / 3,
            "vqa_type_is_there": 1,
            "vqa_type_what_color_is_the": 1 / 2,
            "vqa_type_unsuitable": 0,
        }
    )
