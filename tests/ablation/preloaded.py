"""What the server imports from which the tests' cells are forked."""

import torch.utils.tensorboard  # noqa: F401

import pretzel.ablation.worker.training  # noqa: F401
from pretzel.runs.cli import import_parts

import_parts()
