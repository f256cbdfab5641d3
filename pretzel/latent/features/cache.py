"""Features of images that were seen before, kept in memory."""

import hashlib
from collections import OrderedDict

import torch

from pretzel.latent.features.base import FeatureEncoder
from pretzel.typing import Float, Tensor


class FeatureCache:
    """Features by the content of the image: equal pixels are encoded once.

    They are kept in half precision on the CPU; the oldest are forgotten where they would take more
    memory than allowed.

    Args:
        encoder: What encodes.
        max_mib: Memory of the features, in MiB; 0 keeps none.
    """

    def __init__(self, encoder: FeatureEncoder, max_mib: int) -> None:
        self._encoder = encoder
        self._max_bytes = max_mib * 2**20
        self._features = OrderedDict[bytes, Tensor]()

    def __call__(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n f"]:
        """Return the features of images in [-1, 1], as if read from the cache alone."""
        if not self._max_bytes:
            return self._encoder(images)  # type: ignore[no-any-return]
        keys = [
            hashlib.blake2b(image.numpy(), digest_size=16).digest()
            for image in images.detach().cpu().contiguous()
        ]
        rows = {key: self._features[key] for key in keys if key in self._features}
        new = [place for place, key in enumerate(keys) if key not in rows]
        if new:
            for place, feature in zip(new, self._encoder(images[new]).half().cpu(), strict=True):
                rows[keys[place]] = self._features[keys[place]] = feature.clone()
            size = next(iter(rows.values())).nbytes
            while len(self._features) > max(1, self._max_bytes // size):
                self._features.popitem(last=False)
        return torch.stack([rows[key] for key in keys]).to(images)
