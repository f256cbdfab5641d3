"""Retrieval between images and captions whose relation is known."""

import math
from pathlib import Path

import pytest
import torch
from test_encodings import Encoder, run
from torch import Tensor

from callbacks import CaptionRetrieval
from callbacks.caption_retrieval import retrieval
from callbacks.encoding_evaluation import EncodedSamples
from pretzel.errors import UserError
from pretzel.rng import stream

CAPTIONS = [
    f"a {colour} {shape}" for colour in ("red", "blue", "teal") for shape in ("disk", "box")
]
WIDTH = 8


class Embedder(Encoder):
    """Embeds each text at random."""

    def text_embeddings(self, texts: list[str]) -> Tensor | None:
        return torch.stack([torch.randn(WIDTH, generator=stream(0, text)) for text in texts])

    def encodings(self, images: Tensor) -> dict[str, Tensor | None]:
        return {**super().encodings(images), "adapter": None}


class Mute(Embedder):
    """Has no language model."""

    def text_embeddings(self, texts: list[str]) -> None:
        return None


def samples(count: int, seed: int, *, noise: float) -> EncodedSamples:
    """Return samples encoded as a linear map of their captions' embeddings, and as noise."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(len(CAPTIONS), (count,), generator=generator).tolist()
    captions = [CAPTIONS[number] for number in numbers]
    matrix = torch.randn(WIDTH, WIDTH, generator=stream(1, "map")).double()
    x = Embedder().text_embeddings(captions).double() @ matrix + 3
    mixed = x + noise * torch.randn(x.shape, generator=generator).double()
    random = torch.randn(count, 4, generator=generator).double()
    return EncodedSamples(encodings={"u": mixed, "random": random}, captions=captions)


def measured(train: EncodedSamples, test: EncodedSamples) -> dict[str, float]:
    values = CaptionRetrieval(["u", "random"]).measure(Embedder(), train, test)
    return {name.removeprefix("retrieval_"): value for name, value in values.items()}


def test_ranks_and_recalls_are_those_counted_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.5, 0.1, 0.5], [0.2, 0.8, 0.9, 0.7]]).double()
    right = torch.tensor([[False, True, False, False], [False, True, False, True]])
    # One ahead and one tied, so place 2 or 3; one ahead, so place 2
    assert retrieval(similarity, right) == {"rank": (2.5 + 2) / 2, "recall1": 0, "recall5": 1}


def test_ties_give_the_expectation_over_random_orders() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randint(0, 3, (6, 12), generator=generator).double()
    right = torch.rand(6, 12, generator=generator) < 0.2
    right[:, 0] = True
    count = 1000
    shape = (count, *similarity.shape)
    broken = similarity + 0.1 * torch.rand(shape, generator=generator)
    values = retrieval(similarity, right)
    trials = retrieval(broken.flatten(0, 1), right.repeat(count, 1))
    for name in ("recall1", "recall5"):
        assert values[name] == pytest.approx(trials[name], abs=0.02)


def test_a_linear_relation_is_found_whole_and_a_random_one_not_at_all() -> None:
    values = measured(samples(200, 0, noise=0.0), samples(300, 1, noise=0.0))
    for way in ("to_text", "from_text"):
        assert [values[f"u_{way}_{name}"] for name in ("recall1", "recall5", "rank")] == [1, 1, 1]
    # 300 images of one in 6 captions each: a standard deviation of 0.02
    assert values["random_to_text_recall1"] == pytest.approx(1 / 6, abs=0.06)


def test_chance_is_that_of_a_blind_choice() -> None:
    train, test = samples(200, 0, noise=0.0), samples(300, 1, noise=0.0)
    values = measured(train, test)
    chance = {name: value for name, value in values.items() if name.startswith("chance")}
    counts = [test.captions.count(caption) for caption in CAPTIONS]
    assert chance["chance_to_text_recall1"] == pytest.approx(1 / 6)
    assert chance["chance_to_text_recall5"] == pytest.approx(5 / 6)
    assert chance["chance_to_text_rank"] == 3.5
    for taken in (1, 5):  # without replacement, of 300 images
        miss = [math.comb(300 - count, taken) / math.comb(300, taken) for count in counts]
        expected = 1 - sum(miss) / len(miss)
        assert chance[f"chance_from_text_recall{taken}"] == pytest.approx(expected)


def test_the_order_of_samples_changes_nothing() -> None:
    train, test = samples(200, 0, noise=2.0), samples(100, 1, noise=2.0)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(2)).tolist()
    shuffled = EncodedSamples(
        encodings={name: x[order] for name, x in test.encodings.items()},
        captions=[test.captions[place] for place in order],
    )
    values = measured(train, test)
    assert 0.3 < values["u_to_text_recall1"] < 0.95
    assert measured(train, shuffled) == pytest.approx(values, abs=1e-12)


def test_it_runs_on_samples_and_leaves_out_what_is_not_applicable(tmp_path: Path) -> None:
    retrieval = CaptionRetrieval(["latents", "adapter"], num_train=25, num_test=25)
    values = run(tmp_path, Embedder(), retrieval)
    said = {name for name in retrieval.metric_names() if name.startswith("test/")}
    assert values.keys() == {name for name in said if "adapter" not in name}
    assert values["test/retrieval_latents_to_text_rank"] < 5 < 13
    assert values["test/retrieval_chance_to_text_rank"] == 13  # of 25 captions
    with pytest.warns(UserWarning, match="measures nothing: the model has no language model"):
        assert run(tmp_path, Mute(), retrieval) == {}
    with pytest.raises(UserError, match="CaptionRetrieval needs a module with text_embeddings"):
        run(tmp_path, Encoder(), retrieval)


def test_captions_that_are_all_the_same_are_refused() -> None:
    test = EncodedSamples(encodings={"u": torch.zeros(3, 2).double()}, captions=["a", "", "a"])
    with pytest.raises(UserError, match=r"needs two different captions or more.* got 1 and 2"):
        CaptionRetrieval(["u"]).measure(Embedder(), test, test)
