"""Feature extractors of metrics of images, each with a name that the metric carries."""

import hashlib
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

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


NUM_AT_A_TIME = 32
"""Images whose activations are in memory together: 120 MB at 224x224 in EfficientNet-Lite0."""


class FeatureExtractor(nn.Module, ABC):
    """Turns images in [-1, 1] into one feature vector each.

    Whatever is heavy or may be missing is loaded by :meth:`prepare`, before training and only on
    the rank that measures, so that a configuration can be planned without it.

    """

    no_laws: ClassVar[str] = (
        "any features are right, which the metric is named after; the metrics around them have laws"
    )
    file_names: ClassVar[tuple[str, str] | None] = None
    """Network and layer in the names of files that keep features; None keeps none.

    To be given where equal facts mean equal features: code that may change is not among them.
    """
    _last: tuple[Tensor, Tensor] | None = None

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
    def facts(self) -> dict[str, Any]:
        """Return what computes the features: ``extractor``, ``weights``, ``resize``, ``antialias``.

        ``weights`` is a hash. Values of which one differs are not comparable.
        """

    @abstractmethod
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        """Return the features of images in [-1, 1]."""

    def describe(self) -> str:
        """Return the facts in one line."""
        name, *others = self.facts().items()
        return ", ".join([str(name[1]), *(f"{key} {value}" for key, value in others)])

    @torch.no_grad()
    def features(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        """Return the features, computed a few images at a time.

        Those of the last batch are kept for the next metric that asks for them.
        """
        if self._last is None or self._last[0] is not images:
            self._last = (
                images,
                torch.cat([self(part) for part in torch.split(images, NUM_AT_A_TIME)]),
            )
        return self._last[1]


class ImageClassifier(FeatureExtractor, ABC):
    """A feature extractor with the last layer of its network, for Inception Score."""

    @abstractmethod
    def logits(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n classes"]:
        """Return the logits of the classes."""


def fingerprint(module: nn.Module) -> str:
    """Return the first 12 digits of a SHA-256 over names and values of a module's state."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


class Inception(ImageClassifier):
    """The standard Inception-v3 of FID, as torch-fidelity computes it (2,048 features).

    Its logits are those without bias, of which Inception Score is computed.

    Args:
        weights: Local path of torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``;
            None finds it in torch's cache or downloads it there.
    """

    suffix = ""
    file_names = ("inception-v3-compat", "2048")  # those of torch-fidelity

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.network: FeatureExtractorInceptionV3 | None = None

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
                "callbacks.EfficientNetFeatures, which needs none (the metric is then named so)"
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
    def facts(self) -> dict[str, Any]:
        return {
            "extractor": "Inception-v3 2015-12-05",
            "weights": INCEPTION_SHA256,
            "resize": "bilinear to 299x299, of TensorFlow 1",
            "antialias": False,
        }

    @override
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        assert self.network is not None, "prepare() comes first"
        features: Tensor = self.network(to_integers(images))[0]
        return features

    @override
    def logits(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n classes"]:
        assert self.network is not None, "prepare() comes first"
        logits: Tensor = features @ self.network.fc.weight.T
        return logits


class PooledPixels(FeatureExtractor):
    """Mean colours of the fields of a grid laid over the image: no network, nothing to download.

    They tell colours and layout, at any size and of any pictures, but nothing of what is shown:
    :class:`Inception` does where its weights can be had.

    Args:
        size: Fields of the grid along each side; there are three features in each.
    """

    file_names = ("pixels", "all")

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
    def facts(self) -> dict[str, Any]:
        fields = f"{self.size}x{self.size} fields"
        return {
            "extractor": f"mean colours of {fields}",
            "weights": "none",
            "resize": f"area average to {fields}",
            "antialias": True,
        }

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
    def facts(self) -> dict[str, Any]:
        return {
            "extractor": f"{type(self.module).__module__}.{type(self.module).__qualname__}",
            "weights": fingerprint(self.module),
            "resize": "by itself",
            "antialias": "by itself",
        }

    @override
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        features: Tensor = self.module(images)
        if features.ndim != 2 or len(features) != len(images):
            raise UserError(
                f"ModuleFeatures {self.name!r}: the module must return one vector an image, got "
                f"shape {tuple(features.shape)} for {len(images)} images"
            )
        return features
