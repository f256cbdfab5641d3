"""Drift of text behaviour from the frozen model, against a computation by hand."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_skip_analysis import (
    analysed,
    answers,
    asked_batches,
    known_samples,
    moved,
    no_hooks,
    stacked,
    states,
    tiled,
)
from tiny import perturb, tiny_module

from callbacks.text_drift import TextDrift
from pretzel.interleave import GatedSkip, ZeroSkip


@pytest.mark.parametrize("make", [lambda: tiny_module(stacked(GatedSkip)), lambda: tiled(ZeroSkip)])
def test_text_has_not_drifted_at_the_start(tmp_path: Path, make) -> None:
    actual = analysed(tmp_path, make(), TextDrift())
    assert actual["val/text_drift"] == 0
    assert actual["val/text_perplexity_change"] == 0
    assert actual["val/text_perplexity"] > 1


def drift_by_hand(module) -> dict[str, float]:
    kl, nll, frozen_nll = [], [], []
    with torch.no_grad():
        for batch in asked_batches():
            packed, y_vlm, _, _, y_deep = states(module, batch)
            model = module.pretzel
            text = answers(module, packed)
            p = model.vlm.logits(y_vlm[text]).log_softmax(-1)
            q = model.vlm.logits(model.interleaving.deep_skip(y_vlm, y_deep)[text]).log_softmax(-1)
            kl.append(F.kl_div(q, p, log_target=True, reduction="none").sum(-1))
            for kept, x in ((nll, q), (frozen_nll, p)):
                kept.append(F.nll_loss(x, packed.targets[text], reduction="none"))
    perplexity, frozen = (math.exp(float(torch.cat(x).mean())) for x in (nll, frozen_nll))
    return {
        "val/text_drift": float(torch.cat(kl).mean()),
        "val/text_perplexity": perplexity,
        "val/text_perplexity_change": perplexity - frozen,
        "val/text_drift_n": len(torch.cat(kl)),
    }


def test_drift_is_that_computed_by_hand(tmp_path: Path) -> None:
    module = moved()
    drift = TextDrift(batch_size=2)
    actual = analysed(tmp_path, module, drift)
    expected = drift_by_hand(module)
    assert expected.keys() == {name for name in drift.metric_names() if name.startswith("val/")}
    assert expected["val/text_drift"] > 1e-3
    assert actual == pytest.approx(expected, rel=1e-3)
    assert no_hooks(module)


def test_drift_needs_questions(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="TextDrift measures nothing: .*val samples have none"):
        analysed(tmp_path, moved(), TextDrift(), samples=known_samples()[2:3])


def test_links_inside_the_language_model_are_left_out_of_the_reference(tmp_path: Path) -> None:
    module = tiled(ZeroSkip)
    start = analysed(tmp_path / "a", module, TextDrift())
    perturb(module.pretzel.interleaving.flow_links, 0.1)
    actual = analysed(tmp_path / "b", module, TextDrift())
    assert actual["val/text_drift"] > 1e-4
    frozen = actual["val/text_perplexity"] - actual["val/text_perplexity_change"]
    assert frozen == pytest.approx(start["val/text_perplexity"], rel=1e-5)


def test_without_a_question_on_any_rank_nothing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callbacks.text_drift.question_batches", lambda *_: iter(()))
    assert analysed(tmp_path, moved(), TextDrift()) == {}
