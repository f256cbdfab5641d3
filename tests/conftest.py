"""Shared by all tests: one thread, no network, shapes checked."""

import os
import random
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lightning.pytorch  # noqa: F401
import numpy as np
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


@pytest.fixture(autouse=True)
def own_seed(request):
    """A test that passes once passes always: each draws from a seed made of its name.

    Nor does it depend on the tests before which calls have their shapes checked.
    """
    shape_checks.begin_test()
    seed = zlib.crc32(request.node.nodeid.encode())
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


# Files whose tests start processes or train several stages. Two workers that begin with these end
# at the same time; in the order of their names, one would be left with the longest at the end.
LONGEST_FIRST = (
    "test_stages.py",
    "test_resume_cells.py",
    "test_ddp.py",
    "test_two_runners.py",
    "test_run.py",
    "test_two_processes.py",
    "test_faults.py",
    "test_configs.py",
    "test_pages.py",
    "test_engines.py",
)


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
