from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pretzel.latent import ConvAutoencoder
from pretzel.rng import stream
from pretzel.typing import Tensor


@pytest.fixture(scope="session")
def tiny() -> Callable[[], ConvAutoencoder]:
    """Builds untrained autoencoders of 16 x 16 images, equal ones each time."""

    def build() -> ConvAutoencoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return ConvAutoencoder(image_size=16, channels=4, widths=(8, 16), num_blocks=1)

    return build


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Sixty-four pictures of one coloured rectangle each, on coloured ground, in [-1, 1]."""
    generator = stream("rectangles")
    pictures = torch.empty(64, 3, 16, 16)
    for picture in pictures:
        ground, colour = torch.rand(2, 3, 1, 1, generator=generator)
        y, x = torch.randint(0, 9, (2,), generator=generator).tolist()
        height, width = torch.randint(4, 8, (2,), generator=generator).tolist()
        picture[:] = 0.5 + 0.5 * ground
        picture[:, y : y + height, x : x + width] = 2 * colour - 1
    return pictures


@pytest.fixture(scope="session")
def autoencoder(tiny: Callable[[], ConvAutoencoder], images: Tensor) -> ConvAutoencoder:
    """An autoencoder whose running statistics are those of the pictures; do not change it."""
    autoencoder = tiny()
    with torch.no_grad():
        for _ in range(200):
            autoencoder.encode(images)
    return autoencoder.eval()


@pytest.fixture(scope="session")
def weights(autoencoder: ConvAutoencoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of that autoencoder."""
    path = tmp_path_factory.mktemp("weights") / "autoencoder.safetensors"
    autoencoder.save(path)
    return path
