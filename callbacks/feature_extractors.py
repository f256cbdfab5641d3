"""Feature extractors of FID and KID, each with a name that the metric carries."""

import hashlib
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.hub import load_state_dict_from_url
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.media.integers import to_integers

INCEPTION_SHA256 = "6726825d"
"""First digits of the standard weights' SHA-256, as torch-fidelity writes them in the name."""


class FeatureExtractor(nn.Module, ABC):
    """Turns images in [-1, 1] into one feature vector each.

    Whatever is heavy or may be missing is loaded by :meth:`prepare`, before training and only on
    the rank that measures, so that a configuration can be planned without it.

    Attributes:
        num_features: Length of a feature vector; :class:`callbacks.fid_kid.FID` finds it out.
    """

    num_features: int
    no_laws: ClassVar[str] = (
        "any features are right, which the metric is named after; FID and KID around them have laws"
    )

    @property
    @abstractmethod
    def suffix(self) -> str:
        """Suffix of the metric's name; empty for the standard extractor alone."""

    @abstractmethod
    def prepare(self) -> None:
        """Load what is needed; may be called again.

        Raises:
            UserError: If it cannot be had.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return in one line what computes the features: name, hash, resize."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        """Return the features of images in [-1, 1]."""


def fingerprint(module: nn.Module) -> str:
    """Return the first 12 digits of a SHA-256 over names and values of a module's state."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


class Inception(FeatureExtractor):
    """The standard Inception-v3 of FID, as torch-fidelity computes it (2,048 features).

    Args:
        weights: Local path of torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``;
            None finds it in torch's cache or downloads it there.
    """

    suffix = ""

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.network: nn.Module | None = None

    @override
    def prepare(self) -> None:
        if self.network is None:
            path = self._cached() if self.weights is None else Path(self.weights)
            self._check(path)
            # torch-fidelity unpickles without restrictions: _check has read the same file safely.
            self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))

    def _cached(self) -> Path:
        try:
            load_state_dict_from_url(
                URL_INCEPTION_V3, progress=False, check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"Inception: the standard weights cannot be downloaded ({error}). Fetch "
                f"{URL_INCEPTION_V3} elsewhere and give its local path as `weights`, or use "
                "callbacks.JudgeFeatures, which needs no download (the metric is then named so)"
            ) from error
        folder = Path(str(torch.hub.get_dir()))
        return folder / "checkpoints" / str(URL_INCEPTION_V3).rsplit("/", 1)[-1]

    def _check(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"Inception: weights {str(path)!r} do not exist")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not digest.startswith(INCEPTION_SHA256):
            raise UserError(
                f"Inception: weights {str(path)!r} are not the standard ones: their SHA-256 "
                f"begins {digest[:8]}, expected {INCEPTION_SHA256}. Use callbacks.ModuleFeatures "
                "for another network; the metric is then named after it"
            )
        torch.load(path, map_location="cpu", weights_only=True)

    @override
    def describe(self) -> str:
        return f"Inception-v3 2015-12-05, sha256 {INCEPTION_SHA256}, bilinear to 299x299"

    @override
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        assert self.network is not None, "prepare() comes first"
        features: Tensor = self.network(to_integers(images))[0]
        return features


class PooledPixels(FeatureExtractor):
    """Mean colours of the fields of a grid laid over the image: no network, nothing to download.

    They tell colours and layout, at any size and of any pictures, but nothing of what is shown:
    :class:`Inception` does where its weights can be had.

    Args:
        size: Fields of the grid along each side; there are three features in each.
    """

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        if size < 1:
            raise UserError(f"PooledPixels: size must be at least 1, got {size}")
        self.size = size

    @property
    @override
    def suffix(self) -> str:
        return f"_pixels{self.size}"

    @override
    def prepare(self) -> None:
        """Do nothing: there is nothing to load."""

    @override
    def describe(self) -> str:
        return f"mean colours of {self.size}x{self.size} fields"

    @override
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        return nn.functional.adaptive_avg_pool2d(images, self.size).flatten(1)


class ModuleFeatures(FeatureExtractor):
    """Any module of the user's that maps images in [-1, 1] to feature vectors.

    Args:
        module: Gives ``[n, f]`` for ``[n, 3, height, width]``; it resizes by itself.
        name: Appended to the metric's name: ``fid_<name>``.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise UserError(
                "ModuleFeatures: name must consist of lower-case letters, digits, '_' and '-', "
                f"got {name!r}"
            )
        # A metric's network must neither train nor have batch statistics
        self.module = module.requires_grad_(False).eval()
        self.name = name

    @property
    @override
    def suffix(self) -> str:
        return f"_{self.name}"

    @override
    def prepare(self) -> None:
        """Do nothing: the module is built already."""

    @override
    def describe(self) -> str:
        kind = f"{type(self.module).__module__}.{type(self.module).__qualname__}"
        return f"{kind}, state {fingerprint(self.module)}, resized by itself"

    @override
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        features: Tensor = self.module(images)
        if features.ndim != 2 or len(features) != len(images):
            raise UserError(
                f"ModuleFeatures {self.name!r}: the module must return one vector an image, got "
                f"shape {tuple(features.shape)} for {len(images)} images"
            )
        return features
