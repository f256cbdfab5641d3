"""Sounds: waveforms of one channel."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Int16
from PIL import Image

from pretzel.errors import UserError
from pretzel.files.medium_error import MediumError
from pretzel.files.sound_file import SOUND_SUFFIXES, read_sound, write_wav
from pretzel.media.base import Medium, check_item
from pretzel.media.integers import to_integers
from pretzel.typing import Float, Tensor

_WIDTH, _WAVE, _SPECTRUM = 192, 48, 96
"""Columns, and rows of the waveform and of the spectrogram, of a picture of a sound."""
_DECIBELS = 80
"""Range of a spectrogram below its loudest point."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A waveform of one channel.

    Attributes:
        samples: Samples of 16 bits.
        rate: Samples a second.
    """

    samples: Int16[np.ndarray, " time"]
    rate: int

    def save(self, path: str | Path) -> None:
        """Write a WAV file, whole or not at all."""
        write_wav(self.samples[:, None], self.rate, Path(path))

    def picture(self) -> Image.Image:
        """Return the waveform above its spectrogram: time to the right, frequency upwards."""
        wave = torch.from_numpy(self.samples) / 32767
        places = torch.arange(len(wave)) * _WIDTH // len(wave)
        size = max(32, min(512, len(wave) // 16))
        window = torch.hann_window(size)
        hop = max(1, len(wave) // _WIDTH)
        spectrum = torch.stft(
            wave, size, hop, window=window, return_complex=True, pad_mode="constant"
        )
        decibels = 20 * spectrum.abs().clamp_min(1e-8).log10()
        level = ((decibels - decibels.max()) / _DECIBELS + 1).clamp(0, 1).flip(0)
        lower = Image.fromarray(to_integers(2 * level - 1).numpy())
        upper = np.full((_WAVE, _WIDTH), 255, dtype=np.uint8)
        for column in range(_WIDTH):
            part = wave[places == column]
            if len(part):
                low, high = (
                    (1 - x) / 2 * (_WAVE - 1) for x in (part.max().item(), part.min().item())
                )
                upper[round(low) : round(high) + 1, column] = 0
        picture = Image.new("L", (_WIDTH, _WAVE + _SPECTRUM))
        picture.paste(Image.fromarray(upper))
        picture.paste(lower.resize((_WIDTH, _SPECTRUM), Image.Resampling.BILINEAR), (0, _WAVE))
        return picture.convert("RGB")


@final
class Sounds(Medium):
    """Waveforms of one channel: items [1, samples], written as WAV.

    WAV and FLAC files are read; channels are averaged, a longer sound is cut, a shorter one ends
    in silence. A file with another number of samples a second cannot serve.

    Args:
        rate: Samples a second.
        num_samples: Samples of a sound.

    Raises:
        UserError: If a number is not positive.
    """

    suffixes = SOUND_SUFFIXES
    suffix = "wav"
    dtype = torch.int16

    def __init__(self, rate: int, num_samples: int) -> None:
        if min(rate, num_samples) < 1:
            raise UserError(f"rate and num_samples must be positive, got {rate} and {num_samples}")
        self.rate = rate
        self.num_samples = num_samples

    @property
    def shape(self) -> tuple[int, ...]:
        """One channel, samples."""
        return 1, self.num_samples

    @property
    def identity(self) -> str:
        """Number of samples, and of those a second."""
        return f"sounds:{self.num_samples}:{self.rate}"

    def __str__(self) -> str:
        return f"{self.num_samples} samples at {self.rate} Hz"

    def read(self, data: bytes) -> Int16[np.ndarray, "1 time"]:
        """Return the samples, 16 bits."""
        return self._samples(data)

    def tensor(self, given: Sound | Tensor | str | Path) -> Float[Tensor, "1 time"]:
        """Return a sound, a tensor of :attr:`shape` in [-1, 1], or the sound of a file."""
        if isinstance(given, Tensor):
            return check_item(self, given, "sound")
        try:
            if isinstance(given, Sound):
                samples = self._fitted(given.samples[:, None], given.rate)
            else:
                samples = self._samples(given)
        except (OSError, MediumError) as error:
            raise UserError(f"{given}: cannot be read as a sound ({error})") from error
        return torch.from_numpy(samples) / 32767

    def output(self, item: Float[Tensor, "1 time"]) -> Sound:
        """Return the waveform in 16 bits."""
        return Sound(samples=to_integers(item, self.dtype)[0].cpu().numpy(), rate=self.rate)

    def picture(self, output: Sound) -> Image.Image:
        """Return the waveform above its spectrogram."""
        return output.picture()

    def save(self, output: Sound, path: Path) -> None:
        """Write a WAV file."""
        output.save(path)

    def _samples(self, file: bytes | str | Path) -> Int16[np.ndarray, "1 time"]:
        return self._fitted(*read_sound(file, self.num_samples))

    def _fitted(
        self, samples: Int16[np.ndarray, "read channels"], rate: int
    ) -> Int16[np.ndarray, "1 time"]:
        if rate != self.rate:
            raise MediumError("sample rate", f"{rate} samples a second, not {self.rate}")
        if not len(samples):
            raise MediumError("too short", "no samples")
        cut = samples[: self.num_samples]
        mono = cut[:, 0] if cut.shape[1] == 1 else cut.mean(axis=1).round().astype(np.int16)
        fitted = np.zeros((1, self.num_samples), dtype=np.int16)
        fitted[0, : len(mono)] = mono.clip(-32767)  # the least number would be below -1
        return fitted
