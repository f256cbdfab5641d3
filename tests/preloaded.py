"""What the server imports from which the tests' cells are forked."""

import torch.utils.tensorboard  # noqa: F401

import pretzel.ablation.engines.preload  # noqa: F401
