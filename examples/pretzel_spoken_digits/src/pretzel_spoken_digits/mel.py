"""Log-mel spectrograms of sounds, and sounds of them."""

import math
from typing import final

import torch
from pretzel.typing import Float, Tensor
from torch import nn


@final
class MelSpectrogram(nn.Module):
    """Natural logarithms of the magnitudes in bands of equal width on the mel scale.

    The inverse spreads each band over its frequencies by least squares and finds phases by
    Griffin and Lim's iteration with momentum (Perraudin et al., 2013), from phases that advance
    as the frequency of each bin does: it draws no random numbers.

    Args:
        sample_rate: Samples a second.
        bands: Number of bands.
        window: Samples of one window; a power of 2.
        hop: Samples from one window to the next; it divides the length of sounds.
        floor: Magnitude added before the logarithm. A sine of amplitude 1 has a quarter of the
            window as its largest.
    """

    window: Float[Tensor, " w"]
    filters: Float[Tensor, "f k"]
    spread: Float[Tensor, "k f"]

    def __init__(
        self, sample_rate: int, bands: int, window: int, hop: int, floor: float = 0.1
    ) -> None:
        super().__init__()
        self.hop = hop
        self.floor = floor
        filters = mel_filters(sample_rate, bands, window)
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("spread", torch.linalg.pinv(filters), persistent=False)

    def forward(self, sounds: Float[Tensor, "m t"]) -> Float[Tensor, "m n f"]:
        """Return one log-mel spectrum for each hop."""
        # The last window would be centred behind the sound
        magnitudes = self._transform(sounds).abs()[..., :-1]
        return (self.filters @ magnitudes + self.floor).log().transpose(1, 2)

    def invert(self, spectra: Float[Tensor, "m n f"], iterations: int = 32) -> Float[Tensor, "m t"]:
        """Return sounds with these log-mel spectra, as nearly as there are such sounds."""
        if not len(spectra):  # which istft refuses
            return spectra.new_zeros(0, spectra.shape[1] * self.hop)
        bands = (spectra.exp() - self.floor).clamp_min(0).transpose(1, 2)
        magnitudes = (self.spread @ bands).clamp_min(0)
        magnitudes = torch.cat((magnitudes, torch.zeros_like(magnitudes[..., :1])), dim=-1)
        frames = torch.arange(magnitudes.shape[-1], device=spectra.device)
        bins = torch.arange(magnitudes.shape[-2], device=spectra.device)
        phases = 2 * math.pi * self.hop / len(self.window) * bins[:, None] * frames
        estimate = torch.polar(magnitudes, phases.expand_as(magnitudes).to(magnitudes.dtype))
        last = torch.zeros_like(estimate)
        for _ in range(iterations):
            consistent = self._transform(self._sound(estimate))
            accelerated = consistent + 0.99 * (consistent - last)
            last = consistent
            estimate = torch.polar(magnitudes, accelerated.angle())
        return self._sound(estimate)

    def _transform(self, sounds: Float[Tensor, "m t"]) -> Tensor:
        size = len(self.window)
        return torch.stft(
            sounds, size, self.hop, window=self.window, pad_mode="constant", return_complex=True
        )

    def _sound(self, transform: Tensor) -> Float[Tensor, "m t"]:
        length = (transform.shape[-1] - 1) * self.hop
        return torch.istft(transform, len(self.window), self.hop, window=self.window, length=length)


def mel_filters(sample_rate: int, bands: int, window: int) -> Float[Tensor, "f k"]:
    """Return triangular filters, of equal width on the mel scale, of magnitudes at a window's bins.

    Each adds up to 1.
    """
    highest = sample_rate / 2
    top = 2595 * math.log10(1 + highest / 700)  # O'Shaughnessy's formula
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, highest, window // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp_min(0)
    return (filters / filters.sum(1, keepdim=True)).float()
