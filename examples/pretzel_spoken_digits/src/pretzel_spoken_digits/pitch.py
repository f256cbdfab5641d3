"""Fundamental frequency of a voice, by autocorrelation."""

import torch
from pretzel.typing import Float, Tensor

LOWEST, HIGHEST = 70.0, 400.0
"""Frequencies of voices, in Hz."""
_VOICED = 0.5
"""Autocorrelation, 1 for a periodic sound, from which a window counts as voiced."""


def median_pitch(sounds: Float[Tensor, "m t"], sample_rate: int) -> Float[Tensor, " m"]:
    """Return the median fundamental frequency, in Hz, of the voiced windows of each sound.

    It is NaN where none is voiced. Windows last three periods of the lowest voice; the delay at
    which a window is most like itself, divided by the autocorrelation of the window function
    (Boersma, 1993), is its period.
    """
    size = round(3 * sample_rate / LOWEST)
    windows = sounds.unfold(1, size, size // 4)
    loud = windows.square().mean(2)
    windows = windows - windows.mean(2, keepdim=True)
    taper = torch.hann_window(size, device=sounds.device)
    correlation = _autocorrelation(windows * taper) / _autocorrelation(taper)
    shortest, longest = round(sample_rate / HIGHEST), round(sample_rate / LOWEST)
    strength, delay = correlation[..., shortest : longest + 1].max(2)
    voiced = (strength > _VOICED) & (loud > 0.05 * loud.amax(1, keepdim=True))
    pitch = sample_rate / (delay + shortest)
    return pitch.where(voiced, torch.nan).nanmedian(dim=1).values


def _autocorrelation(windows: Float[Tensor, "*b t"]) -> Float[Tensor, "*b t"]:
    """Return the autocorrelation at each delay, 1 at delay 0."""
    size = windows.shape[-1]
    power = torch.fft.rfft(windows, 2 * size).abs().square()
    correlation: Tensor = torch.fft.irfft(power)[..., :size]
    return correlation / correlation[..., :1].clamp_min(1e-9)
