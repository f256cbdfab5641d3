"""How near reconstructed images are to the true ones."""

import torch

from pretzel.typing import Float, Tensor


def psnr(
    images: Float[Tensor, "m 3 height width"], targets: Float[Tensor, "m 3 height width"]
) -> Float[Tensor, " m"]:
    """Return the peak signal-to-noise ratio of each image in dB, pixels clipped to [-1, 1]."""
    error = (images.clamp(-1, 1) - targets).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / error)  # the peak is 2, from -1 to 1
