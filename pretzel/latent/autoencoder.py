"""Latents of a small convolutional autoencoder, trained with noise on its latents."""

import hashlib
import json
from pathlib import Path
from typing import final

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.latent.base import LatentSpace, check_noise, check_varying
from pretzel.latent.convolutions import GROUP_WIDTH, ResidualBlock, check_widths, upsampling
from pretzel.latent.pixels import patchify, unpatchify
from pretzel.typing import Float, Tensor

_METADATA_KEY = "pretzel.conv_autoencoder"  # one key: safetensors does not keep an order of keys
_SHIPPED = Path(__file__).with_name("autoencoder.safetensors")


# Not final: of a slot for a final class jsonargparse takes no init_args on the command line
class ConvAutoencoder(nn.Module):
    """A convolutional autoencoder whose latent channels have zero mean and unit variance.

    The last layer of the encoder is a batch norm without scale or shift: over the training data
    each latent channel has mean 0 and variance 1, so that a noise level means the same in every
    channel and the encoder cannot escape the noise by growing its latents. In eval mode it uses
    running statistics, and images do not depend on each other.

    Args:
        image_size: Side of the square images, in pixels.
        channels: Channels of the latent maps.
        widths: Channels of the hidden layers, multiples of 8, one entry for each halving of the
            resolution, fine to coarse; ``[32, 64]`` maps 64 x 64 pixels to 16 x 16 latents.
        num_blocks: Residual blocks at each resolution, in the encoder and in the decoder.

    Raises:
        UserError: If a size is not positive, a width is no multiple of 8, or the halvings do not
            divide ``image_size``.
    """

    def __init__(
        self, *, image_size: int, channels: int, widths: tuple[int, ...], num_blocks: int
    ) -> None:
        super().__init__()
        if channels < 1:
            raise UserError(f"channels must be positive, got {channels}")
        if num_blocks < 0:
            raise UserError(f"num_blocks must be 0 or positive, got {num_blocks}")
        check_widths(widths)
        if image_size < 1 or image_size % 2 ** len(widths):
            raise UserError(
                f"image_size must be a multiple of {2 ** len(widths)} "
                f"(one halving for each of {len(widths)} widths), got {image_size}"
            )
        self.image_size = image_size
        self.channels = channels
        self.widths = tuple(widths)
        self.num_blocks = num_blocks
        self.side = image_size // 2 ** len(widths)
        self.encoder = self._encoder()
        self.decoder = upsampling(channels, self.widths[::-1], num_blocks)
        # A momentum of 0.05 averages about 20 batches: one batch of mostly empty images is too
        # few, and older statistics are those of another encoder.
        self.normalize = nn.BatchNorm2d(channels, affine=False, momentum=0.05)

    def _encoder(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        previous = 3
        for width in self.widths:
            layers.append(nn.Conv2d(previous, width, 4, stride=2, padding=1))
            layers += [ResidualBlock(width) for _ in range(self.num_blocks)]
            previous = width
        layers += [nn.GroupNorm(previous // GROUP_WIDTH, previous), nn.SiLU()]
        layers.append(nn.Conv2d(previous, self.channels, 1))
        return nn.Sequential(*layers)

    def encode(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> Float[Tensor, "m channels side side"]:
        """Map images in [-1, 1] to normalised latent maps.

        Raises:
            UserError: If the images have another size than ``image_size``.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise UserError(
                f"images must be {self.image_size} x {self.image_size} pixels "
                f"(image_size of the autoencoder), got {tuple(images.shape[-2:])}"
            )
        maps: Tensor = self.normalize(self.encoder(images))
        return maps

    def decode(
        self, maps: Float[Tensor, "m channels side side"]
    ) -> Float[Tensor, "m 3 height width"]:
        """Map latent maps, clean or noised, to images."""
        images: Tensor = self.decoder(maps)
        return images

    def save(self, path: Path) -> None:
        """Write weights, running statistics and configuration to one safetensors file.

        Equal weights give equal bytes. The file appears under its name only when it is complete.

        Raises:
            UserError: If a latent channel is constant over the training images.
        """
        variance = self.normalize.running_var
        assert variance is not None
        check_varying(variance)
        arguments = ("image_size", "channels", "widths", "num_blocks")
        config = {name: getattr(self, name) for name in arguments}
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        data = safetensors.torch.save(tensors, {_METADATA_KEY: json.dumps(config, sort_keys=True)})
        with whole_file(path) as partial:
            partial.write_bytes(data)

    @classmethod
    def load(cls, path: Path) -> "ConvAutoencoder":
        """Build the autoencoder that a file describes, on the default device.

        Raises:
            UserError: If there is no such file, or it does not hold an autoencoder.
        """
        if not path.is_file():
            raise UserError(
                f"weights must name a file written by the autoencoder stage, got {path}, "
                "which does not exist"
            )
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                device = torch.get_default_device()  # the meta device when a grid is only planned
                names: list[str] = file.keys()
                # Copies: the tensors of safetensors are the mapped file, and change when it does.
                tensors = {name: file.get_tensor(name).to(device, copy=True) for name in names}
            if _METADATA_KEY not in metadata:
                raise ValueError("it holds none")
            config = json.loads(metadata[_METADATA_KEY])
            with torch.device("meta"):  # no initialisation: the global random state stays as it is
                autoencoder = cls(**{**config, "widths": tuple(config["widths"])})
            autoencoder.load_state_dict(tensors, assign=True)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"weights must name a file written by the autoencoder stage, got {path}: {error}"
            ) from error
        return autoencoder


@final
class Autoencoder(LatentSpace):
    """The latents of a trained autoencoder, frozen, grouped into patches.

    The decoder was trained on noised latents, so it decodes a sample of the flow, which has the
    flow's training noise, without a denoiser.

    Args:
        patch_size: Side of the square of latents that makes one position of the flow.
        noise: Standard deviation of the training noise of the flow; latents have variance 1. Keep
            it below the level that the autoencoder was trained with.
        weights: File written by the autoencoder stage (``ablations/stages/autoencoder.yaml``);
            the one shipped here, for easy-VQA at 64 px, if not given.

    Raises:
        UserError: If ``weights`` is missing or no autoencoder (or the shipped file does not have
            its recorded SHA-256), ``patch_size`` does not divide the side of the latent maps, or
            ``noise`` is negative.
    """

    trained_by = "ablations/stages/autoencoder.yaml"

    def __init__(self, patch_size: int, noise: float, weights: str | None = None) -> None:
        super().__init__()
        check_noise(noise)
        path = _SHIPPED if weights is None else Path(weights)
        self.autoencoder = ConvAutoencoder.load(path)
        side = self.autoencoder.side
        if patch_size < 1 or side % patch_size:
            raise UserError(
                f"patch_size must divide the side {side} of the latent maps, got {patch_size}"
            )
        self.image_size = self.autoencoder.image_size
        self.patch_size = patch_size
        self.noise = noise
        self.grid = (side // patch_size,) * 2
        self.channels = self.autoencoder.channels * patch_size**2
        self._digest = hashlib.sha256(path.read_bytes()).hexdigest()
        expected = _SHIPPED.with_name(f"{_SHIPPED.name}.sha256").read_text().split()[0]
        if weights is None and self._digest != expected:
            raise UserError(
                f"weights: the shipped {_SHIPPED.name} has SHA-256 {self._digest[:12]}..., but its "
                f"record says {expected[:12]}...: restore both files from the repository"
            )
        self.requires_grad_(False)
        self.eval()

    @property
    def identity(self) -> str:
        """Name, content hash of the weights and patch size."""
        return f"autoencoder:{self._digest[:16]}/{self.patch_size}"

    def train(self, mode: bool = True) -> "Autoencoder":
        """Stay in eval mode: a frozen autoencoder has no training behaviour."""
        return super().train(False)

    def encode(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n d"]:
        """Map images in [-1, 1] to clean latents of variance 1 in each channel."""
        return patchify(self.autoencoder.encode(images), self.patch_size)

    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m 3 height width"]:
        """Map latents, clean or noised, to images."""
        return self.autoencoder.decode(unpatchify(latents, self.grid, self.patch_size))
