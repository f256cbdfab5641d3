"""Losses of reconstructed images."""

import math
from abc import ABC, abstractmethod
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, final

import torch
from torch import nn
from torch.func import functional_call
from torchmetrics.functional.image.lpips import _LPIPS

from pretzel.errors import UserError
from pretzel.files.torch_file import read_torch
from pretzel.files.weights import check_architecture
from pretzel.flow.sizes import check_sizes
from pretzel.typing import Float, Tensor


class ImageLoss(nn.Module, ABC):
    """A distance of images from those that they should be.

    Args:
        weight: Factor in the sum of losses.

    Attributes:
        name: Of the loss in logs.
        start_step: Optimizer step from which on it counts.

    Raises:
        UserError: If ``weight`` is not positive and finite.
    """

    name: ClassVar[str]
    no_laws: ClassVar[str] = "any loss may be tried; what it leads to is measured"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if not 0 < weight < math.inf:
            raise UserError(f"weight must be positive and finite, got {weight}")
        self.weight = weight
        self.start_step = 0

    @abstractmethod
    def forward(
        self,
        images: Float[Tensor, "m 3 height width"],
        targets: Float[Tensor, "m 3 height width"],
    ) -> Float[Tensor, " m"]:
        """Return the loss of each image."""


@final
class AbsoluteError(ImageLoss):
    """Mean absolute difference: edges and flat areas stay clean."""

    name = "l1"

    def forward(
        self,
        images: Float[Tensor, "m 3 height width"],
        targets: Float[Tensor, "m 3 height width"],
    ) -> Float[Tensor, " m"]:
        """Return the loss of each image."""
        return (images - targets).abs().mean(dim=(1, 2, 3))


@final
class SquaredError(ImageLoss):
    """Mean squared difference: colours become right."""

    name = "l2"

    def forward(
        self,
        images: Float[Tensor, "m 3 height width"],
        targets: Float[Tensor, "m 3 height width"],
    ) -> Float[Tensor, " m"]:
        """Return the loss of each image."""
        return (images - targets).square().mean(dim=(1, 2, 3))


@final
class PerceptualDistance(ImageLoss):
    """LPIPS (arXiv 1801.03924), as torchmetrics computes it: distance of features.

    Its network is loaded with the first images and is no submodule: no checkpoint holds it.

    Args:
        weight: Factor in the sum of losses.
        net: ``vgg`` or ``alex``.
        weights: Local file of torchvision's ImageNet weights of that network
            (``vgg16-397923af.pth``, ``alexnet-owt-7be5be79.pth``); None finds them in torch's
            cache or downloads them there.

    Raises:
        UserError: If ``weight`` is not positive.
    """

    name = "lpips"

    def __init__(
        self, weight: float = 1.0, net: Literal["vgg", "alex"] = "vgg", weights: str | None = None
    ) -> None:
        super().__init__(weight)
        self.net = net
        self.weights = weights

    def forward(
        self,
        images: Float[Tensor, "m 3 height width"],
        targets: Float[Tensor, "m 3 height width"],
    ) -> Float[Tensor, " m"]:
        """Return the distance of each image.

        Raises:
            UserError: If the weights cannot be had.
        """
        distance: Tensor = self._network.to(images)(images, targets)
        return distance.flatten()

    @cached_property
    def _network(self) -> nn.Module:
        try:
            with torch.random.fork_rng(devices=[]):  # built with initial weights first
                network = _LPIPS(net=self.net, pnet_rand=self.weights is not None)
        except OSError as error:  # no network
            raise UserError(
                f"weights must name torchvision's weights of {self.net} where they cannot be "
                f"downloaded ({error})"
            ) from error
        if self.weights is not None:
            path = Path(self.weights)
            if not path.is_file():
                raise UserError(f"weights must name a file, got {path}, which does not exist")
            _take_torchvision(network.net, read_torch(path), str(path))
        return network.eval().requires_grad_(False)


def _take_torchvision(net: nn.Module, state: object, source: str) -> None:
    """Load torchvision's convolutions into a network that holds them in slices."""
    own = {name: f"features.{name.partition('.')[2]}" for name in net.state_dict()}
    known = state if isinstance(state, dict) else {}
    renamed = {name: known[other] for name, other in own.items() if other in known}
    check_architecture(net.state_dict(), renamed, source)
    net.load_state_dict(renamed)


@final
class AdversarialLoss(ImageLoss):
    """Hinge loss against a discriminator of patches (arXiv 1611.07004, 1705.02894).

    The discriminator trains by the same step: what moves it does not reach the images, and what
    moves the images does not reach it.

    Args:
        weight: Factor in the sum of losses. The discriminator's own part has it too, which an
            optimizer like AdamW does not feel.
        width: Channels of its first layer; each of the following halves the resolution and doubles
            them, up to eight times as many.
        num_layers: Layers that halve the resolution.
        start_step: Optimizer step from which on it counts, and its discriminator trains: images
            should be about right before they are told from real ones.

    Raises:
        UserError: If ``weight`` or a size is not positive, or ``start_step`` is negative.
    """

    name = "adversarial"

    def __init__(
        self, weight: float = 0.1, width: int = 64, num_layers: int = 3, start_step: int = 0
    ) -> None:
        super().__init__(weight)
        if start_step < 0:
            raise UserError(f"start_step must be 0 or positive, got {start_step}")
        self.start_step = start_step
        check_sizes(width=width, num_layers=num_layers)
        widths = [3, *(width * min(2**i, 8) for i in range(num_layers))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.discriminator = nn.Sequential(*layers)

    def forward(
        self,
        images: Float[Tensor, "m 3 height width"],
        targets: Float[Tensor, "m 3 height width"],
    ) -> Float[Tensor, " m"]:
        """Return the sum of both sides' losses."""
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        score = functional_call(self.discriminator, fixed, (images,))
        real, made = self.discriminator(targets), self.discriminator(images.detach())
        loss: Tensor = (1 - real).relu() + (1 + made).relu() - score
        return loss.mean(dim=(1, 2, 3))
