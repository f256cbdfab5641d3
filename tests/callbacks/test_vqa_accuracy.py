"""Questions are asked and answers scored, beside what the questions alone give away."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from weakref import WeakSet

import pytest
import torch
from torch import Tensor
from world import (
    Known,
    KnownData,
    Recaller,
    evaluate,
    known_samples,
    make_trainer,
    names_at_test,
)

from callbacks import AmongChoices, VQAAccuracy
from callbacks.easy_vqa.judge import COLOURS
from callbacks.vqa.blind_baseline import BlindBaseline
from callbacks.vqa.questions import AnsweredQuestion, choose_questions, questions_of
from callbacks.vqa.scoring import Scoring, SoftAccuracy
from datamodules import EasyVQA, Split
from pretzel.errors import UserError


def test_truth_is_all_right_and_nonsense_is_all_wrong(tmp_path: Path) -> None:
    accuracy, other = VQAAccuracy(), VQAAccuracy()
    right = evaluate(tmp_path, Recaller(), [accuracy])
    wrong = evaluate(tmp_path, Recaller(noise=True), [other])
    absent = {f"{p}_{n}" for p in ("vqa", "vqa_blind") for n in ("number", "other", "type_*")}
    assert right.keys() == names_at_test(accuracy) - absent
    assert accuracy.sample_results != other.sample_results
    for name, value in right.items():
        kept = [one["values"].get(f"test/{name}") for one in accuracy.sample_results]
        own = [score for score in kept if score is not None]
        assert name == "vqa_n" or value == pytest.approx(sum(own) / len(own))
    assert accuracy.sample_results[1] == {
        "item": "0-0#2",
        "group": "0-0",
        "values": {
            "test/vqa": 1.0,
            "test/vqa_yes_no": 1.0,
            "test/vqa_exact": 1.0,
            "test/vqa_blind": 0.0,
            "test/vqa_blind_yes_no": 0.0,
            "test/vqa_blind_exact": 0.0,
        },
        "texts": {"question": "is there a circle?", "answer": "yes", "truth": "yes"},
    }
    for name in ("vqa", "vqa_exact", "vqa_yes_no", "vqa_open"):
        assert (right[name], wrong[name]) == (1, 0)
    assert right["vqa_n"] == wrong["vqa_n"] == 72
    # alone, "what color" is right for 1 of 8, "is there a circle" ("no") for 2 of 3 and
    # "what shape" for 1 of 3: the known training split is the test split
    for values in (right, wrong):
        assert values["vqa_blind_yes_no"] == pytest.approx(2 / 3)
        assert values["vqa_blind_open"] == pytest.approx((1 / 8 + 1 / 3) / 2)
        assert values["vqa_blind"] == pytest.approx((1 / 8 + 2 / 3 + 1 / 3) / 3)


def questions(split: Split) -> list[tuple[str, str]]:
    """Return all questions of a split without decoding its images."""
    source = EasyVQA()
    raws = [raw for shard in source.shards(split) for raw in source.read(shard)]
    return [(q, a) for raw in raws for q, a in json.loads(raw.members["json"])["questions"]]


def test_blind_baseline_of_easy_vqa() -> None:
    train, test = questions("train"), questions("test")
    blind = BlindBaseline(train)
    asked = [AnsweredQuestion(key="", question=q, truth=a, answer=blind.answer(q)) for q, a in test]
    values = SoftAccuracy().values(asked, "blind")
    assert (len(train), len(asked)) == (34243, 9673)
    assert sum(a.truth in ("yes", "no") for a in asked) == 7136
    assert values["blind"] == pytest.approx(0.670, abs=5e-4)
    assert values["blind_yes_no"] == pytest.approx(0.825, abs=5e-4)
    assert values["blind_open"] == pytest.approx(0.233, abs=5e-4)


@dataclass(frozen=True, kw_only=True)
class Annotated(Known):
    """A sample with the answers of ten people, and types, as of VQAv2."""

    answers: tuple[tuple[str, ...], ...]
    answer_types: tuple[str, ...] = ()
    question_types: tuple[str, ...] = ()


def annotated(sample: Known, **fields: object) -> Annotated:
    return Annotated(**(vars(sample) | fields))


def test_all_answers_and_types_of_the_data_are_scored(tmp_path: Path) -> None:
    """The model says the target; seven of ten said it, in other words, and two something else."""
    samples = [
        annotated(
            sample,
            answers=tuple(
                (f"The {answer.title()}.", answer, "dark", f"{answer}!", "dark", *["?"] * 5)
                for _, answer in sample.questions
            ),
            answer_types=("other", "yes/no", "other"),
            question_types=("what color is the", "is there a", ""),
        )
        for sample in known_samples()
        if sample.questions
    ]
    metric = VQAAccuracy()
    trainer = make_trainer(tmp_path, [metric])
    trainer.test(Recaller(), datamodule=KnownData(samples=samples), verbose=False)
    values = {k.removeprefix("test/"): float(v) for k, v in trainer.callback_metrics.items()}
    soft = ("vqa", "vqa_yes_no", "vqa_open", "vqa_type_what_color_is_the", "vqa_type_is_there_a")
    assert {name: values[name] for name in soft} == pytest.approx(dict.fromkeys(soft, 0.9))
    assert values["vqa_exact"] == 1
    # of the blind baseline "what color" is right for 1 of 8
    assert values["vqa_blind_type_what_color_is_the"] == pytest.approx(0.9 / 8)
    assert all(any(fnmatch(name, n) for n in names_at_test(metric)) for name in values)


def test_a_scoring_that_asks_has_the_ground_truth_of_each_questions_sample(tmp_path: Path) -> None:
    class ByColour(Scoring):
        name, needs_truth = "by", True
        ends = tuple(f"_{colour}" for colour in COLOURS)

        def is_right(self, answered: AnsweredQuestion) -> bool:
            return True

        def scores(self, answered: AnsweredQuestion, prefix: str) -> dict[str, float]:
            return {f"{prefix}_{answered.sample_truth['colour']}": 1.0}

    values = evaluate(tmp_path, Recaller(), [VQAAccuracy(scoring=ByColour())])
    assert {f"by_{colour}" for colour in COLOURS} < values.keys()
    assert not questions_of(known_samples()[0])[0].sample_truth


def test_answers_and_types_of_a_sample_are_those_of_its_questions() -> None:
    sample = known_samples()[0]
    assert [one.answers for one in questions_of(sample)] == [()] * 3
    (one, *_) = questions_of(annotated(sample, answers=()))
    assert (one.truth, one.answers, one.answer_type) == ("red", (), "")
    for fields, message in [
        ({"answers": (("red",),) * 2}, "answers of sample '0-0' must be one for each of its 3"),
        ({"answers": ("red", "yes", "circle")}, "must be a list of texts for each question"),
        (
            {"answers": (), "answer_types": ("other",)},
            "answer_types of sample '0-0' must be one for each of its 3 questions, got 1",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            questions_of(annotated(sample, **fields))


class Scorer(Recaller):
    """Knows how likely choices are: the longer the likelier, the truth before all."""

    def __init__(self, knows: bool = True) -> None:
        super().__init__(noise=True)
        self.knows = knows
        self.calls: list[tuple[int, list[str], bool]] = []

    def choice_log_probs(
        self, images: Tensor, questions: list[str], keys: list[str], choices: list[str], *,
        per_token: bool,
    ) -> Tensor:  # fmt: skip
        self.calls.append((len(images), choices, per_token))
        known = {s.key: dict(s.questions) for s in self.trainer.datamodule.samples}
        truths = [known[key][question] for key, question in zip(keys, questions, strict=True)]
        return torch.tensor(
            [[self.knows * 99.0 * (c == t) + len(c) for c in choices] for t in truths]
        )


def test_the_likeliest_of_given_choices_is_the_answer(tmp_path: Path) -> None:
    module = Scorer()
    metric = VQAAccuracy(AmongChoices(["no", "yes", "red"], per_token=True), blind_baseline=False)
    values = evaluate(tmp_path, module, [metric])
    # "yes" and "no" are all known, of eight colours one, and no shape
    assert values["vqa_yes_no"] == 1
    assert values["vqa_open"] == pytest.approx((1 / 8 + 0) / 2)
    assert module.calls == [(72, ["no", "yes", "red"], True)]
    assert module.asked == []
    fact = {"n": 72, "answers": "likeliest of 3 choices, mean over tokens"}
    assert metric.facts["test/vqa"] == metric.facts["test/vqa_open"] == fact
    assert metric.facts.keys() == {f"test/{name}" for name in values if name != "vqa_n"}


def test_choices_may_be_the_most_frequent_answers_of_training(tmp_path: Path) -> None:
    module = Scorer(knows=False)
    metric = VQAAccuracy(AmongChoices(3), blind_baseline=False)
    values = evaluate(tmp_path, module, [metric])
    # of 24 images 16 say "no", 8 "yes", 8 each shape, of which the circle comes first
    assert module.calls[0][1:] == (["no", "yes", "circle"], False)
    assert values["vqa"] == pytest.approx(8 / 72)
    assert (
        metric.answering.describe() == "likeliest of the 3 most frequent answers, sum over tokens"
    )
    assert VQAAccuracy().answering.describe() == "greedy"


def test_a_module_that_cannot_score_choices_measures_nothing(tmp_path: Path) -> None:
    metric = VQAAccuracy(AmongChoices(["yes", "no"]))
    with pytest.warns(UserWarning, match=r"AmongChoices needs a module with choice_log_probs\("):
        assert evaluate(tmp_path, Recaller(), [metric]) == {}


def test_choices_that_are_none_are_refused(tmp_path: Path) -> None:
    for choices, message in [
        ([], r"choices must be different answers, none empty, got \[\]"),
        (["yes", " "], "none empty"),
        (["yes", "no", "yes"], "must be different answers"),
        (0, "choices must be at least 1, got 0"),
    ]:
        with pytest.raises(UserError, match=f"AmongChoices: .*{message}|{message}"):
            AmongChoices(choices)
    module = Scorer()
    module.choice_log_probs = lambda *args, **kwargs: torch.zeros(72, 2)  # type: ignore[method-assign]
    with pytest.raises(
        UserError, match=r"one number a question and choice, \[72, 1\], got \[72, 2"
    ):
        evaluate(tmp_path, module, [VQAAccuracy(AmongChoices(["yes"]))])


def test_blind_baseline_counts_normalised_answers() -> None:
    blind = BlindBaseline([("a?", "no"), ("a?", "Yes."), ("a?", "yes")])
    assert blind.answer("a?") == "yes"


def test_blind_baseline_falls_back_to_the_majority_and_to_the_first_of_equals() -> None:
    pairs = [("a?", "yes"), ("a?", "no"), ("b?", "red"), ("c?", "red"), ("c?", "red")]
    blind = BlindBaseline(pairs)
    assert [blind.answer(q) for q in ("a?", "b?", "new?")] == ["yes", "red", "red"]


class TextAlone(KnownData):
    """Hands out texts without images, and notes whose images are decoded."""

    def evaluation_texts(self, split: Split = "test", limit: int | None = None) -> list[object]:
        if split == "train":
            self.limit = limit
        fields = ("key", "caption", "questions")
        return [SimpleNamespace(**{f: getattr(s, f) for f in fields}) for s in self.samples[:limit]]

    def chosen_samples(self, split: Split, keys: Collection[str]) -> list[Known]:
        self.decoded = [sample for sample in self.samples if sample.key in keys]
        return self.decoded

    def evaluation_samples(self, split: str = "test", limit: int | None = None) -> Iterator[Known]:
        raise AssertionError("all images are decoded")


def test_images_are_decoded_of_samples_that_are_asked_about_alone(tmp_path: Path) -> None:
    data = TextAlone()
    trainer = make_trainer(tmp_path, [VQAAccuracy(num_questions=7, num_blind_samples=2)])
    trainer.test(Recaller(), datamodule=data, verbose=False)
    assert trainer.callback_metrics["test/vqa_n"] == 7
    assert [one.key for one in data.decoded] == ["0-0", "2-2", "5-1"]
    assert data.limit == 2
    # of the first sample alone: red, yes, circle
    blind = trainer.callback_metrics
    assert blind["test/vqa_blind_yes_no"] == pytest.approx(1 / 2)
    assert blind["test/vqa_blind_open"] == pytest.approx(2 / 5)


def test_not_applicable_without_image_to_text(tmp_path: Path) -> None:
    module, accuracy = Recaller(can_answer=False), VQAAccuracy()
    assert evaluate(tmp_path, module, [accuracy]) == {}
    assert accuracy.sample_results == ()
    assert module.asked == []


def test_questions_about_an_image_stay_together(tmp_path: Path) -> None:
    module = Recaller()
    evaluate(tmp_path, module, [VQAAccuracy(batch_size=8)])
    assert all(len(batch) <= 8 for batch in module.asked)
    for batch in module.asked:
        assert all(batch.count(key) == 3 for key in batch)
    assert sum(len(batch) for batch in module.asked) == 72
    assert module.modes == {False}


def test_batches_smaller_than_an_image_still_ask_everything(tmp_path: Path) -> None:
    assert evaluate(tmp_path, Recaller(), [VQAAccuracy(batch_size=1)])["vqa_n"] == 72


@pytest.mark.parametrize("limit", [1, 10, 71, 72, 500])
def test_a_subset_has_its_size_and_spreads(limit: int) -> None:
    counts = [3 if place % 2 else 0 for place in range(48)]
    chosen = choose_questions(counts, limit)
    assert sum(chosen.values()) == min(limit, 72)
    assert all(chosen[place] <= count for place, count in enumerate(counts))
    if limit == 10:
        assert [place for place in chosen if chosen[place]] == [1, 13, 25, 37]


def test_a_subset_of_uneven_samples_is_filled_up() -> None:
    assert sum(choose_questions([0, 1, 0, 50, 1], 49).values()) == 49


class HeldImages(KnownData):
    """Counts the images that are alive at the same time."""

    most = 0

    def evaluation_samples(self, split: str = "test", limit: int | None = None) -> Iterator[Known]:
        alive = WeakSet[Tensor]()
        for sample in super().evaluation_samples(split, limit):
            image = sample.image.clone()
            alive.add(image)
            yield replace(sample, image=image)
            self.most = max(self.most, len(alive))


@pytest.mark.parametrize("limit", [None, 60])
def test_images_are_held_a_batch_at_a_time(tmp_path: Path, limit: int | None) -> None:
    data = HeldImages()
    metric = VQAAccuracy(num_questions=limit, batch_size=9, blind_baseline=False)
    make_trainer(tmp_path, [metric]).test(Recaller(), datamodule=data, verbose=False)
    assert data.most <= 7  # a batch, the one before it, and the image just made


def test_validation_asks_fewer_and_counts(tmp_path: Path) -> None:
    metric = VQAAccuracy(num_validation_questions=12, every_n_validations=2)
    trainer = make_trainer(tmp_path, [metric], max_epochs=3, limit_val_batches=1)
    module = Recaller()
    trainer.fit(module, datamodule=KnownData())
    assert trainer.callback_metrics["val/vqa_n"] == 12
    assert sum(len(batch) for batch in module.asked) == 12


def test_wrong_answers_are_shown(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    evaluate(tmp_path, Recaller(noise=True), [VQAAccuracy()], board=True)
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent)).Reload()
    tensor = events.Tensors("test/wrong_answers/text_summary")[0].tensor_proto
    text = tensor.string_val[0].decode()
    assert text.startswith("72 of 72 wrong")
    assert text.count("| maybe |") == 32


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size must be at least 1, got 0"):
        VQAAccuracy(batch_size=0)
    data = KnownData(samples=list(islice(known_samples(), 1, 2)))
    with pytest.warns(UserWarning, match="VQAAccuracy measures nothing: .*test samples have none"):
        make_trainer(tmp_path, [VQAAccuracy()]).test(Recaller(), datamodule=data, verbose=False)
