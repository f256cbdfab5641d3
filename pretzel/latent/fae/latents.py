"""The latent space of a trained feature autoencoder."""

from pathlib import Path
from typing import final

from pretzel.errors import UserError
from pretzel.files.shipped import file_of
from pretzel.files.weights import exported_hash
from pretzel.latent.base import LatentSpace, check_noise
from pretzel.latent.fae.network import FAENetwork
from pretzel.typing import Float, Tensor

_SHIPPED = Path(__file__).with_name("easy_vqa.safetensors")


@final
class FAE(LatentSpace):
    """The mean latents of a feature autoencoder (arXiv 2512.07829), frozen, of variance 1.

    A frozen vision encoder's features are squeezed into few channels; a decoder gives the features
    back, another one pixels. What the encoder knows of an image is in the latents.

    Args:
        noise: Standard deviation of the training noise of the flow; latents have variance 1.
        weights: File written by ``PixelDecoderTraining`` (``ablations/latents/fae_pixels.yaml``);
            the name of a shipped one (``scenes``, for :class:`datamodules.Scenes` at 64 px); or the
            shipped one of easy-VQA at 64 px, if neither it nor a network is given.
        network: The network that takes the weights; None for the one that the file describes, of
            this package's classes. Without ``weights`` it is untrained, to be checked and counted,
            and no model is trained on it.

    Raises:
        UserError: If ``weights`` is missing, damaged or not those of the network, there is no pixel
            decoder, or ``noise`` is negative.
    """

    trained_by = "ablations/latents/fae_features.yaml, then fae_pixels.yaml"

    def __init__(
        self, noise: float, weights: str | None = None, network: FAENetwork | None = None
    ) -> None:
        super().__init__()
        check_noise(noise)
        file = file_of("weights", weights, _SHIPPED)
        trained = network is None or weights is not None
        if network is None:
            network = FAENetwork.load(file)
        elif trained:
            network.take(file)
        self._digest = exported_hash(file)[:16] if trained else ""
        if network.pixel_decoder is None:
            source = "network" if weights is None else f"weights={weights}"
            raise UserError(
                f"{source} must have a pixel decoder, got none: the second stage trains it "
                "(ablations/latents/fae_pixels.yaml)"
            )
        self.network = network
        self.image_size = network.image_size
        self.noise = noise
        self.grid = network.grid
        self.channels = network.channels
        self.requires_grad_(False)
        self.eval()

    @property
    def identity(self) -> str:
        """Name and content hash of the weights, that of the encoder among them.

        Raises:
            UserError: If it is untrained: nothing may be trained on its latents, or stored of them.
        """
        if not self._digest:
            raise UserError(
                "weights of the FAE must be given: without them it is untrained, to be counted "
                "alone; PixelDecoderTraining writes them"
            )
        return f"fae:{self._digest}"

    def train(self, mode: bool = True) -> "FAE":
        """Stay in eval mode: a frozen autoencoder has no training behaviour."""
        return super().train(False)

    def encode(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n d"]:
        """Map images in [-1, 1] to clean latents of variance 1 in each channel."""
        return self.network.encode(images)

    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m 3 height width"]:
        """Map latents, clean or noised, to images."""
        return self.network.decode(latents)
