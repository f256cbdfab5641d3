"""Whitening of VLM states: what it does to them, and that nothing of it is trained or saved."""

import torch

from pretzel.interleave import Stacked, TextPrefix
from pretzel.interleave.whitening import RIDGE, Whitening, run_tokens
from pretzel.vlm.tiny import TinyVLM


def covariance(states):
    centred = states - states.mean(dim=0)
    return centred.T @ centred / len(states)


def fitted(vlm):
    whitening = Whitening(hidden_size=vlm.hidden_size).double()
    whitening.fit(vlm)
    return whitening


def test_no_direction_of_the_vocabulary_is_louder_than_another():
    vlm = TinyVLM().double()
    states = run_tokens(vlm)[:, 1]
    white = fitted(vlm)(states)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros_like(white[0]), atol=1e-8, rtol=0)
    before = torch.linalg.eigvalsh(covariance(states)).clamp(min=0)
    after = torch.linalg.eigvalsh(covariance(white))
    # eigenvalue by eigenvalue: lambda / (lambda + ridge), at most one
    expected = before / (before + RIDGE * before.mean())
    torch.testing.assert_close(after, expected, atol=1e-8, rtol=0)
    assert before[-1] / before.mean() > 10
    assert after[-1] <= 1


def test_colours_stand_out():
    vlm = TinyVLM().double()
    words = torch.tensor([vlm.encode_text(word)[0] for word in ("red", "green", "blue", "teal")])
    states = run_tokens(vlm)[:, 1]
    white = fitted(vlm)(states)

    def spread(y):
        return (y[words].std(dim=0).norm() / (y - y.mean(dim=0)).std(dim=0).norm()).item()

    assert spread(white) > 2 * spread(states)


def test_it_is_neither_trained_nor_saved_and_can_be_left_out():
    for interleaving in (Stacked, TextPrefix):
        part = interleaving(4, 8, 16)
        assert not any("whitening" in name for name, _ in part.named_parameters())
        assert not any("whitening" in name for name in part.state_dict())
        assert interleaving(4, 8, 16, whiten=False).whitening is None
