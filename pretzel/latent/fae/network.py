"""The feature autoencoder as one network, and the file that it is kept in."""

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.weights import check_architecture, read_exported, save_exported
from pretzel.latent.base import check_varying
from pretzel.latent.fae.bottleneck import Bottleneck, BottleneckFactory
from pretzel.latent.fae.feature_decoder import FeatureDecoder, FeatureDecoderFactory
from pretzel.latent.fae.pixel_decoder import PixelDecoder, PixelDecoderFactory
from pretzel.latent.features.base import FeatureEncoder
from pretzel.typing import Float, Tensor

_METADATA_KEY = "pretzel.fae"


class Standardise(nn.Module):
    """Features with zero mean and unit variance in each channel, by statistics of training data.

    While training, the mean and the variance over all features seen so far are kept; in several
    processes, over those of rank zero, whose buffers DDP gives to the others.

    Args:
        grid: Rows and columns of the features.
        channels: Of the features.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, grid: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, features: Float[Tensor, "m n f"]) -> Float[Tensor, "m n f"]:
        """Return standardised features.

        Raises:
            UserError: If they are not of the grid and the channels that the encoder states.
        """
        (rows, columns), channels = self.grid, len(self.mean)
        if features.shape[1:] != (rows * columns, channels):
            raise UserError(
                f"the feature encoder must give {rows} x {columns} vectors of {channels} channels, "
                f"its grid and stages, got {tuple(features.shape[1:])}"
            )
        if self.training:
            self._update(features.detach().flatten(0, 1))
        return (features - self.mean) * (self.variance + 1e-6).rsqrt()

    def _update(self, rows: Float[Tensor, "k f"]) -> None:
        # Chan's pairwise update of mean and variance
        total = self.count + len(rows)
        share = (len(rows) / total).to(rows)
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        difference = mean - self.mean
        self.variance += share * (variance - self.variance)
        self.variance += share * (1 - share) * difference.square()
        self.mean += share * difference
        self.count.copy_(total)


# Not final: of a slot for a final class jsonargparse takes no init_args on the command line
class FAENetwork(nn.Module):
    """A frozen vision encoder, a bottleneck, and the way back to features and to pixels.

    Latents have zero mean and unit variance in each channel: a batch norm without scale or shift
    stands behind the bottleneck's mean, so that a noise level means the same in every channel.

    Args:
        encoder: Frozen vision encoder.
        bottleneck: Makes the map from features to the Gaussian of latents.
        feature_decoder: Makes the map back.
        pixel_decoder: Makes the map from features to images; None while there is none yet.

    Raises:
        UserError: If the encoder's grid is not square, as images are.
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        bottleneck: BottleneckFactory,
        feature_decoder: FeatureDecoderFactory,
        pixel_decoder: PixelDecoderFactory | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.trained_with: str | None = None
        grid, features = encoder.grid, encoder.channels
        if len(set(grid)) != 1:
            raise UserError(f"encoder must have a square grid, as images are, got {list(grid)}")
        self.standardise = Standardise(grid, features)
        self.bottleneck: Bottleneck = bottleneck(grid=grid, features=features)
        self.channels = self.bottleneck.channels
        # As in ConvAutoencoder: about the last 20 batches
        self.normalize = nn.BatchNorm1d(self.channels, affine=False, momentum=0.05)
        self.feature_decoder: FeatureDecoder = feature_decoder(
            grid=grid, channels=self.channels, features=features
        )
        self.pixel_decoder: PixelDecoder | None = None
        if pixel_decoder is not None:
            self.set_pixel_decoder(pixel_decoder)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the latents."""
        return self.encoder.grid

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return self.encoder.image_size

    def set_pixel_decoder(self, make: PixelDecoderFactory) -> None:
        """Build a pixel decoder anew."""
        encoder = self.encoder
        self.pixel_decoder = make(
            grid=encoder.grid, features=encoder.channels, image_size=encoder.image_size
        )

    def features(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n f"]:
        """Return standardised features of images in [-1, 1].

        Raises:
            UserError: If the encoder's weights are not those that the others were trained with.
        """
        if self.trained_with is not None and self.encoder.identity != self.trained_with:
            raise UserError(
                f"weights: the FAE must be used with the encoder it was trained with, "
                f"{self.trained_with}, got {self.encoder.identity}"
            )
        self.trained_with = None  # once is enough
        features: Tensor = self.standardise(self.encoder(images))
        return features

    def gaussian(
        self, features: Float[Tensor, "m n f"]
    ) -> tuple[Float[Tensor, "m n c"], Float[Tensor, "m n c"] | None]:
        """Return normalised mean and log-variance of the latents of standardised features."""
        mean, log_variance = self.bottleneck(features)
        normal: Tensor = self.normalize(mean.flatten(0, 1)).view_as(mean)
        return normal, log_variance

    def encode(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n c"]:
        """Return the mean latents of images in [-1, 1]."""
        return self.gaussian(self.features(images))[0]

    def decode(self, latents: Float[Tensor, "m n c"]) -> Float[Tensor, "m 3 height width"]:
        """Return images of latents; there must be a pixel decoder."""
        assert self.pixel_decoder is not None
        images: Tensor = self.pixel_decoder(self.feature_decoder(latents))
        return images

    def save(self, path: Path, *, half_precision: bool = False) -> None:
        """Write weights, statistics and the classes and arguments of all parts to one file.

        Args:
            path: The file.
            half_precision: Round weights to float16, for half the size; statistics stay.

        Raises:
            UserError: If a latent channel is constant over the training images.
        """
        variance = self.normalize.running_var
        assert variance is not None
        check_varying(variance)
        parts = (self.bottleneck, self.feature_decoder, self.pixel_decoder)
        record = {
            "encoder": _record(self.encoder),
            "identity": self.encoder.identity,
            "parts": [part and _record(part) for part in parts],
        }
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        if half_precision:
            tensors |= {name: tensors[name].half() for name, _ in self.named_parameters()}
        with whole_file(path) as partial:
            save_exported(tensors, partial, {_METADATA_KEY: json.dumps(record, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "FAENetwork":
        """Build the network that a file describes, on the default device.

        Only classes of parts that are imported by now are built; with others, build the network and
        let it :meth:`take` the weights.

        Raises:
            UserError: If the file holds no FAE, or a part is of a class that is not known.
        """
        record = _read_record(path)
        try:
            bottleneck, feature_decoder, pixel_decoder = record["parts"]
            with torch.random.fork_rng(devices=[]):  # initial weights, which are replaced
                network = cls(
                    _part(FeatureEncoder, record["encoder"])(),
                    _part(Bottleneck, bottleneck),
                    _part(FeatureDecoder, feature_decoder),
                    pixel_decoder and _part(PixelDecoder, pixel_decoder),
                )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"weights must name a file of an FAE, got {path}: {error}") from error
        network.take(path)
        return network

    def take(self, path: Path) -> None:
        """Take the weights of a file that :meth:`save` wrote.

        Raises:
            UserError: If they are not those of such a network.
        """
        state, _ = read_exported(path)
        own = self.state_dict()
        check_architecture(own, state, str(path))
        # Assigned, not copied: a network that is only planned is on the meta device
        self.load_state_dict({k: value.to(own[k]) for k, value in state.items()}, assign=True)
        self.trained_with = str(_read_record(path).get("identity"))


def _read_record(path: Path) -> dict[str, Any]:
    _, metadata = read_exported(path, shapes_only=True)
    if _METADATA_KEY not in metadata:
        raise UserError(f"weights must name a file of an FAE, got {path}, which holds none")
    try:
        record: dict[str, Any] = json.loads(metadata[_METADATA_KEY])
    except ValueError as error:
        raise UserError(f"weights must name a file of an FAE, got {path}: {error}") from error
    return record


def _record(part: nn.Module) -> dict[str, Any]:
    """Return the class of a part and its own arguments, which it keeps under their names."""
    kind = type(part)
    names = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if isinstance(part, FeatureEncoder) or parameter.kind == parameter.KEYWORD_ONLY
    ]
    return {
        "class_path": f"{kind.__module__}.{kind.__qualname__}",
        "init_args": {name: getattr(part, name) for name in names},
    }


def _part(base: type, record: dict[str, Any]) -> Callable[..., Any]:
    """Return what makes a part: of those classes alone that are imported."""
    path = record["class_path"]
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in record["init_args"].items()}
    pending = [base]
    while pending:
        kind = pending.pop()
        if f"{kind.__module__}.{kind.__qualname__}" == path:
            return partial(kind, **arguments)
        pending += kind.__subclasses__()
    raise UserError(f"weights: {path} is no {base.__name__} that is known; import it first")
