"""Descriptions of images against their captions: CIDEr-D by hand, BLEU-4, references."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from torch import Tensor
from world import Known, KnownData, Recaller, evaluate, known_samples, make_trainer, names_at_test

from callbacks import CaptionQuality
from callbacks.captions.cider import cider_d
from callbacks.captions.words import TOKENS, caption_words
from pretzel.errors import UserError


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A red circle.", "a red circle"),
        ("A man's t-shirt, isn\u2019t it?", "a man 's t-shirt is n't it"),
        ("  3.5 metres (about) -- high!", "3.5 metres about high"),
        ("don't", "do n't"),
        ("!?", ""),
    ],
)
def test_words_of_captions(caption: str, words: str) -> None:
    assert caption_words(caption) == words.split()


def cider(descriptions: list[str], references: list[list[str]]) -> list[float]:
    return cider_d(
        [d.split() for d in descriptions], [[r.split() for r in of] for of in references]
    )


def test_cider_of_a_description_that_is_its_reference() -> None:
    """All n-grams agree, of as many lengths as there are words, at most four."""
    references = [["a b c d e"], ["f g h"], ["i"]]
    assert cider(["a b c d e", "f g h", "i"], references) == pytest.approx([10, 7.5, 2.5])


def test_cider_by_hand() -> None:
    """Two images: words of one weigh log 2, words of both nothing."""
    references = [["a red cat"], ["a dog"]]
    # words: g(c) = (red: log 2), g(r) = (red, cat: log 2 each): cosine 1 / sqrt(2); pairs: "a red"
    # of two in the reference, which is the only one of the description: 1 / sqrt(2); one pair less
    expected = 10 / 4 * (1 / math.sqrt(2) + 1 / math.sqrt(2)) * math.exp(-1 / 72)
    assert cider(["a red", "a"], references) == pytest.approx([expected, 0])


def test_cider_does_not_reward_repetition_and_means_over_references() -> None:
    references = [["cat cat", "dog"], ["bird"]]
    # the count of "cat" is clipped to the reference's: min(3, 2) 2 / (3 2); pairs: min(2, 1) 1 /
    # (2 1); against "dog" nothing
    expected = 10 * (2 * 2 / (3 * 2) + 1 / 2) / 4 * math.exp(-1 / 72) / 2
    assert cider(["cat cat cat", ""], references) == pytest.approx([expected, 0])


def test_cider_of_one_image_knows_no_rare_words() -> None:
    assert cider(["a cat"], [["a cat"]]) == [0]
    assert cider([], []) == []


class Describes(Recaller):
    """Says the caption of the image, or always the same; counts the images it is shown at once."""

    def __init__(self, text: str | None = None, *, can_answer: bool = True) -> None:
        super().__init__(can_answer=can_answer)
        self.text = text
        self.calls: list[tuple[int, str, int]] = []

    def describe(
        self, images: Tensor, keys: list[str], *, request: str, max_tokens: int
    ) -> list[str]:
        self.calls.append((len(images), request, max_tokens))
        known = {s.key: s.caption for s in self.trainer.datamodule.samples}
        return [f"{known[key].title()}. " if self.text is None else self.text for key in keys]


def test_captions_themselves_are_perfect_and_one_text_for_all_is_not(tmp_path: Path) -> None:
    module, metric = Describes(), CaptionQuality(batch_size=10, request="say it", max_tokens=7)
    with pytest.warns(UserWarning, match="no caption has four words, so there is no BLEU-4"):
        right = evaluate(tmp_path, module, [metric])
    assert right.keys() == names_at_test(metric) - {"caption_bleu4"}
    assert right["caption_cider"] == pytest.approx(7.5)  # of three words
    assert right["caption_n"] == 25
    assert module.calls == [(10, "say it", 7), (10, "say it", 7), (5, "say it", 7)]
    assert metric.facts["test/caption_cider"] == {"tokens": TOKENS, "references": "1"}
    kept = metric.sample_results[1]
    assert kept["texts"] == {"description": "A Red Shape.", "captions": "a red shape"}
    assert (kept["item"], *kept["values"]) == ("partial", "test/caption_cider")
    with pytest.warns(UserWarning, match="no BLEU-4"):
        wrong = evaluate(tmp_path, Describes("a red circle"), [CaptionQuality()])
    assert 0 < wrong["caption_cider"] < 2


@dataclass(frozen=True, kw_only=True)
class Captioned(Known):
    captions: tuple[str, ...]


def test_bleu_is_of_the_corpus_and_all_captions_are_references(tmp_path: Path) -> None:
    """Of 5 words 5, of 4 pairs 3, ... are in the captions; of two that are as close in length, the
    shorter counts, and the description is not too short.
    """
    captions = ("one two three four nine ten", "six, five, six, six", "")
    texts = [Captioned(**(vars(s) | {"captions": captions})) for s in known_samples()[:2]]
    trainer = make_trainer(tmp_path, [metric := CaptionQuality()])
    module = Describes("One two three four five")
    trainer.test(module, datamodule=KnownData(samples=texts), verbose=False)
    values = trainer.callback_metrics
    # "five" is in the other caption; pairs and triples within the first alone
    expected = (5 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    assert values["test/caption_bleu4"].item() == pytest.approx(expected, rel=1e-5)
    assert metric.facts["test/caption_bleu4"]["references"] == "2"


def test_validations_describe_fewer_images_which_are_spread(tmp_path: Path) -> None:
    module, metric = Describes(), CaptionQuality(num_validation_images=5)
    trainer = make_trainer(tmp_path, [metric], max_epochs=1, limit_val_batches=1)
    with pytest.warns(UserWarning, match="no BLEU-4"):
        trainer.fit(module, datamodule=KnownData())
    assert trainer.callback_metrics["val/caption_n"] == 5
    assert metric.sample_results == ()


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    assert evaluate(tmp_path, Describes(can_answer=False), [CaptionQuality()]) == {}
    with pytest.raises(UserError, match=r"CaptionQuality needs a module with describe\(\.\.\.\)"):
        evaluate(tmp_path, Recaller(), [CaptionQuality()])
    bare = [replace(sample, caption=" . ") for sample in known_samples()]
    with pytest.warns(UserWarning, match="CaptionQuality measures nothing: .* have none"):
        make_trainer(tmp_path, [CaptionQuality()]).test(
            Describes(), datamodule=KnownData(samples=bare), verbose=False
        )
    short = Describes()
    short.describe = lambda *args, **kwargs: ["a"]
    with pytest.raises(UserError, match=r"describe\(\) must return one text an image: got 1"):
        evaluate(tmp_path, short, [CaptionQuality()])
    with pytest.raises(UserError, match="max_tokens must be at least 1, got 0"):
        CaptionQuality(max_tokens=0)
