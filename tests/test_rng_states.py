"""The global random states: seeded by key, saved in plain types, put back."""

import random

import numpy as np
import pytest
import torch

from pretzel.rng import global_states, seed_global, set_global_states


def draws():
    # an odd number of normal draws leaves numpy and Python one in hand
    return (
        [random.random(), random.gauss(0, 1)],
        np.random.randn(3).tolist(),
        torch.randn(3).tolist(),
    )


@pytest.fixture(autouse=True)
def _leave_the_states_alone():
    before = global_states()
    yield
    set_global_states(before)


def test_states_survive_a_file_that_is_loaded_with_weights_only(tmp_path):
    draws()
    torch.save(global_states(), tmp_path / "states.pt")
    expected = draws()
    draws()
    set_global_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draws() == expected


def test_equal_keys_give_equal_draws_whatever_was_drawn_before():
    seed_global(0, "step", 3)
    expected = draws()
    draws()
    seed_global(0, "step", 3)
    assert draws() == expected
    seed_global(0, "step", 4)
    assert all(a != b for a, b in zip(draws(), expected, strict=True))


@pytest.mark.gpu
def test_the_state_of_a_gpu_is_among_them():
    states = global_states("cuda")
    expected = torch.rand(4, device="cuda")
    set_global_states(states, "cuda")
    assert torch.equal(torch.rand(4, device="cuda"), expected)
