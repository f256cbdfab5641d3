"""Choosing tokens: greedy, temperature, nucleus."""

import pytest
import torch

from pretzel.errors import UserError
from pretzel.generation.writing import GREEDY, Writing

PROBABILITIES = torch.tensor([[0.1, 0.5, 0.05, 0.35], [0.25, 0.25, 0.4, 0.1]], dtype=torch.float64)
LOGITS = PROBABILITIES.log()
UNIFORM = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000


def frequencies(writing, row):
    """Return how often each token is chosen, over evenly spaced random numbers."""
    tokens = writing.choose(LOGITS[row].expand(1000, -1), UNIFORM)
    return torch.bincount(tokens, minlength=4) / 1000


def test_greedy_is_the_limit_of_low_temperatures():
    greedy = GREEDY.choose(LOGITS)
    assert greedy.tolist() == [1, 2]
    for temperature in (1e-3, 1e-30, 1e-50, 5e-324):
        for uniform in (0.0, 0.5, 0.999999):
            given = torch.full((2,), uniform)
            writing = Writing(temperature=temperature)
            assert torch.equal(writing.choose(LOGITS, given), greedy)
            assert torch.equal(writing.choose(LOGITS.float(), given), greedy)


@pytest.mark.parametrize("row", [0, 1])
def test_tokens_come_with_their_probabilities(row):
    found = frequencies(Writing(temperature=1.0), row)
    torch.testing.assert_close(found.double(), PROBABILITIES[row], rtol=0, atol=2e-3)


def test_temperature_divides_the_logits():
    found = frequencies(Writing(temperature=0.5), 0)
    expected = PROBABILITIES[0] ** 2 / (PROBABILITIES[0] ** 2).sum()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.01, [[1], [2]]),
        (0.49, [[1], [2, 0]]),
        (0.51, [[1, 3], [2, 0]]),
        (0.84, [[1, 3], [2, 0, 1]]),
        (0.88, [[1, 3, 0], [2, 0, 1]]),
        (1.0, [[0, 1, 2, 3], [0, 1, 2, 3]]),
    ],
)
def test_the_nucleus_is_the_fewest_likeliest_that_reach_top_p(top_p, kept):
    writing = Writing(temperature=1.0, top_p=top_p)
    for row, tokens in enumerate(kept):
        found = frequencies(writing, row)
        assert found.nonzero()[:, 0].tolist() == sorted(tokens)
        # in their own proportions
        expected = torch.where(found > 0, PROBABILITIES[row], 0)
        torch.testing.assert_close(found.double(), expected / expected.sum(), rtol=0, atol=2e-3)


def test_what_is_ruled_out_is_never_chosen_not_even_by_rounding():
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    writing = Writing(temperature=1.0)
    almost_one = torch.tensor([1 - 2**-53], dtype=torch.float64)
    for uniform in (torch.zeros(1, dtype=torch.float64), almost_one):
        assert writing.choose(logits, uniform).item() != 1


@pytest.mark.parametrize("writing", [GREEDY, Writing(temperature=1.0, top_p=0.9)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_leave_no_token_are_refused(writing, value):
    logits = LOGITS.clone()
    logits[1] = value
    with pytest.raises(
        UserError, match=r"logits .* must have a finite maximum, got (nan|-?inf) in"
    ):
        writing.choose(logits, torch.zeros(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature must be 0 or positive, got -1.0"),
        ({"temperature": float("inf")}, "temperature must be 0 or positive, got inf"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Writing(**arguments)
