"""A text encoder that has learnt nothing: random weights, and a vocabulary of the captions."""

from collections.abc import Iterable
from pathlib import Path

import torch
from pretzel.vlm.tiny.network import TinyConfig, TinyNetwork
from pretzel.vlm.tiny.tokenizer import WordPieces
from pretzel.vlm.tiny.weights import save_weights

VOCAB_SIZE = 256


def save_words(path: Path, captions: Iterable[str]) -> None:
    """Write weights for :class:`pretzel.vlm.tiny.TinyVLM` in which every word is a token.

    The states of a random layer tell words apart as clearly as their random embeddings do. The
    shipped model was trained on shapes, in letters it has hardly seen together: there they are
    close, and the flow is slow to find them.
    """
    tokenizer = WordPieces.train(captions, VOCAB_SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = TinyNetwork(TinyConfig(vocab_size=tokenizer.vocab_size, num_layers=1))
    save_weights(path, network, tokenizer)
