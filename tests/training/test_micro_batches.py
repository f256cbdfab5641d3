"""Documents that are run a few at a time have the scores and the gradients of the whole batch."""

from functools import partial

import pytest
import torch
from ddp_step import uneven
from tiny import joined, perturb, tiny_pretzel

from pretzel.interleave import MixtureOfTransformers, Stacked, TextPrefix, Tiled, Unconditional
from pretzel.training.micro_batches import in_parts, scored_in_parts


@pytest.mark.parametrize(
    ("interleaving", "deep"),
    [
        pytest.param(Stacked, 1, id="stacked"),
        pytest.param(partial(Tiled, word="VVVVF"), 1, id="tiled"),
        pytest.param(TextPrefix, 1, id="prefix"),
        pytest.param(Unconditional, 1, id="unconditional"),
        pytest.param(MixtureOfTransformers, 0, id="mixture"),
    ],
)
def test_scores_and_gradients_are_those_of_the_whole_batch(interleaving, deep):
    model = tiny_pretzel(interleaving, deep=deep).double()
    perturb(model)
    batch = joined(*uneven())
    x = model.encode(batch.images, model.noise(len(batch.images), "x"))
    scores, gradients = [], []
    for size in (None, 3):
        output = scored_in_parts(model.score, size, batch.documents, x)
        loss = output.token_nll.sum() - output.log_prob.square().mean() / 1e4 + output.u.sum()
        model.zero_grad()
        loss.backward()
        scores.append(vars(output))
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9)
    close(scores[1], scores[0])
    close(gradients[1], gradients[0])


def test_nothing_but_inputs_is_kept_of_a_part():
    layer, kept = torch.nn.Linear(3, 3), []
    zeros = torch.zeros(4, 3)
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
        in_parts(lambda x: layer(x).exp(), 2, zeros)
        assert not any(tensor.any() for tensor in kept)
        in_parts(lambda x: layer(x).exp(), None, zeros)
        assert any(tensor.any() for tensor in kept)
