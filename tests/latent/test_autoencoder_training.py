from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from latent.conftest import tiny
from torch.nn import Parameter
from torch.utils.data import DataLoader

from pretzel import rng
from pretzel.errors import UserError
from pretzel.latent import Autoencoder, ConvAutoencoder
from pretzel.latent.autoencoder_training import AutoencoderTraining, psnr
from pretzel.schedule import WarmupCosine
from pretzel.sequence import DocumentBatch, caption_document
from pretzel.typing import Tensor
