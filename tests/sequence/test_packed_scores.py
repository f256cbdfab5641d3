"""Several documents in a row: what each is worth is what it is worth in a row of its own."""

from functools import partial

import pytest
import torch
from documents import LONG, SAYING, SHORT

from pretzel.flow import AFBlock, DeepStream, ExplicitSplit
from pretzel.interleave import (
    LatentInput,
    Stacked,
    TextPrefix,
    TowerInput,
    Unconditional,
)
from pretzel.interleave.mixture import MixtureOfTransformers
from pretzel.interleave.tiled import Tiled
from pretzel.model import Pretzel
from pretzel.sequence.document import (
    DocumentBatch,
)
from pretzel.testing import Case, tiny_pretzel
from pretzel.testing.laws.models import latents

ARMS = [
    pytest.param(Stacked, 1, LONG, id="Stacked"),
    pytest.param(partial(Stacked, vision_input=LatentInput()), 1, LONG, id="LatentInput"),
    pytest.param(partial(Stacked, vision_input=TowerInput()), 1, LONG, id="TowerInput"),
    pytest.param(partial(Tiled, word="VVF"), 2, LONG, id="Tiled"),
    pytest.param(MixtureOfTransformers, 0, LONG, id="MixtureOfTransformers"),
    pytest.param(TextPrefix, 1, SHORT, id="TextPrefix"),
    pytest.param(Unconditional, 1, SHORT, id="Unconditional"),
]


def built(interleaving, deep_layers=1):
    return Case(
        factory=lambda: tiny_pretzel(interleaving, deep_layers=deep_layers), perturbed=True
    ).build()


def scored(model, documents, x, pack_length):
    model.pack_length = pack_length
    scores = model.score(documents, x)
    loss = -scores.log_prob.sum() + scores.token_nll.sum()
    asked = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [x, *asked], allow_unused=True)
    return scores, [g for g in gradients if g is not None]


@pytest.mark.parametrize(("interleaving", "deep_layers", "documents"), ARMS)
def test_documents_that_share_rows_score_as_if_alone(interleaving, deep_layers, documents):
    model = built(interleaving, deep_layers)
    x = latents(model, sum(d.num_images for d in documents)).requires_grad_()
    expected, slopes = scored(model, documents, x, None)
    longest = model.pack(documents).tokens.shape[1]
    for length in (2 * longest, 4 * longest):
        found, gradients = scored(model, documents, x, length)
        assert len(model.pack(documents).tokens) < len(documents)
        for name in ("z", "u", "log_prob", "token_nll"):
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=0, atol=1e-10
            )
        for gradient, slope in zip(gradients, slopes, strict=True):
            torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-9)


def test_images_of_other_documents_of_the_row_do_not_matter():
    model = built(Stacked)
    model.pack_length = 1000
    x = latents(model, sum(d.num_images for d in LONG))
    numbers = [i for i, d in enumerate(LONG) for _ in range(d.num_images)]
    changed = x.clone()
    changed[numbers.index(2) : numbers.index(2) + 2] += 1
    assert len(model.pack(LONG).tokens) == 1
    with torch.no_grad():
        before, after = model.score(LONG, x), model.score(LONG, changed)
    moved = (before.log_prob - after.log_prob).abs() > 0
    assert moved.tolist() == [number == 2 for number in numbers]


@pytest.mark.parametrize("pack_length", [None, 40])
def test_the_text_prefix_costs_no_position_of_an_image(pack_length, monkeypatch):
    model = built(TextPrefix)
    model.pack_length = pack_length
    seen = []
    run = type(model.vlm).forward
    monkeypatch.setattr(
        type(model.vlm),
        "forward",
        lambda self, embeddings, *rest, **more: (
            seen.append(embeddings.shape[1]) or run(self, embeddings, *rest, **more)
        ),
    )
    with torch.no_grad():
        model.score(SHORT, latents(model, len(SHORT)))
    packed = model.pack(SHORT)
    text = (packed.is_valid & ~packed.is_image).sum(dim=1).max()
    assert seen
    assert seen[-1] <= text


def test_a_row_needs_a_length():
    model = built(Unconditional)
    with pytest.raises(ValueError, match="pack_length must be at least 1, got 0"):
        Pretzel(
            latent=model.latent,
            split=ExplicitSplit(shallow=[], deep=1),
            permutations=[],
            shallow=AFBlock,
            deep=DeepStream,
            vlm=model.vlm,
            interleaving=Unconditional,
            pack_length=0,
        )


@pytest.mark.parametrize("pack_length", [None, 100])
def test_a_batch_may_hold_no_image(pack_length):
    model = built(Stacked)
    model.pack_length = pack_length
    batch = DocumentBatch(documents=(SAYING,) * 2, images=torch.zeros(0, 3, 4, 4).double())
    scores = model(batch, latents(model, 0))
    assert (scores.log_prob.shape, scores.z.shape[0]) == ((0,), 0)
    # each of the two answers has its words and its end
    assert len(scores.token_nll) == 2 * (len(model.vlm.encode_text("circle")) + 1)
    assert scores.token_nll.isfinite().all()
