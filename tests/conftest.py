"""Shared by all tests: one thread, no network, shapes checked."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lightning.pytorch  # noqa: F401
import pytest
import shape_checks
import torch
import torchmetrics  # noqa: F401
import transformers  # noqa: F401

# These come before any module of ours: what is imported while the hook of the shape checks imports
# one of ours is compiled anew in every test process.
shape_checks.install()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Several test processes share the cores better than threads do."""
    torch.set_num_threads(1)
