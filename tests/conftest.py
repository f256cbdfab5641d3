"""Shared by all tests: one thread, no network."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Several test processes share the cores better than threads do."""
    import torch

    torch.set_num_threads(1)
