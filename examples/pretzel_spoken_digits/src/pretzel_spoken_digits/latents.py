"""Mel latents: the principal components of a few log-mel spectra in a row, whitened."""

import json
from pathlib import Path
from typing import final

import torch
from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.weights import exported_hash, read_exported, save_exported
from pretzel.latent import LatentSpace
from pretzel.latent.base import check_noise
from pretzel.latent.linear import principal_components
from pretzel.media import Sounds
from pretzel.typing import Float, Tensor

from pretzel_spoken_digits.mel import MelSpectrogram

_SETTINGS = "pretzel_spoken_digits.mel_latents"
BANDS, WINDOW, HOP = 64, 512, 128
SPECTRA = 4
"""Spectra of one position: at 16 kHz a position lasts 32 ms."""


@final
class MelLatents(LatentSpace):
    """Sounds as positions over time, each of the channels of variance 1.

    A linear map of log-mel spectra, which leave out the phases: what is decoded sounds alike, but
    its waveform is another one.

    Args:
        weights: File written by :func:`fit_mel_latents`.
        noise: Standard deviation of the training noise of the flow.

    Raises:
        UserError: If ``weights`` is missing or holds no mel latents, or ``noise`` is negative.
    """

    mean: Float[Tensor, " p"]
    components: Float[Tensor, "d p"]
    scales: Float[Tensor, " d"]

    def __init__(self, weights: str, noise: float) -> None:
        super().__init__()
        check_noise(noise)
        path = Path(weights)
        state, metadata = read_exported(path)
        try:
            settings = json.loads(metadata[_SETTINGS])
            self._sounds = Sounds(
                rate=int(settings["rate"]), num_samples=int(settings["num_samples"])
            )
            device = torch.get_default_device()  # the meta device when a grid is only planned
            for name in ("mean", "components", "scales"):
                self.register_buffer(name, state[name].to(device))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"weights must name a file of mel latents, got {path}: {error}"
            ) from error
        self.mel = MelSpectrogram(self._sounds.rate, BANDS, WINDOW, HOP)
        self.noise = noise
        self.grid = (self._sounds.num_samples // (HOP * SPECTRA),)
        self.channels = len(self.components)
        self._digest = exported_hash(path)[:16]

    @property
    def medium(self) -> Sounds:
        """Sounds of one length at one sample rate."""
        return self._sounds

    @property
    def identity(self) -> str:
        """Name and content hash of the file."""
        return f"mel:{self._digest}"

    def encode(self, sounds: Float[Tensor, "m 1 t"]) -> Float[Tensor, "m n d"]:
        """Project spectra on the components."""
        self.check_size(sounds)
        spectra = self.mel(sounds[:, 0]).unflatten(1, (-1, SPECTRA)).flatten(2)
        return (spectra - self.mean) @ (self.components.T / self.scales)

    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m 1 t"]:
        """Add up the components, and find sounds of these spectra."""
        spectra = latents @ (self.scales[:, None] * self.components) + self.mean
        return self.mel.invert(spectra.unflatten(2, (SPECTRA, BANDS)).flatten(1, 2))[:, None]


def fit_mel_latents(
    path: Path, sounds: Float[Tensor, "m t"], sample_rate: int, channels: int
) -> None:
    """Write the first components of these sounds to one file.

    Raises:
        UserError: If they differ in fewer components than ``channels``.
    """
    mel = MelSpectrogram(sample_rate, BANDS, WINDOW, HOP)
    positions = mel(sounds).unflatten(1, (-1, SPECTRA)).flatten(2).flatten(0, 1).double()
    components, scales = principal_components(torch.cov(positions.T), channels)
    state = {
        "mean": positions.mean(0).float(),
        "components": components.float().contiguous(),
        "scales": scales.float(),
    }
    settings = json.dumps({"rate": sample_rate, "num_samples": sounds.shape[1]})
    with whole_file(path) as partial:
        save_exported(state, partial, {_SETTINGS: settings})
