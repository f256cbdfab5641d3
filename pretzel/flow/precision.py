"""Precision of sums, and of layers under autocast."""

import torch

from pretzel.typing import Tensor


def at_least_float32(x: Tensor) -> torch.dtype:
    """Return the dtype in which many numbers such as these are summed."""
    return torch.promote_types(x.dtype, torch.float32)


def is_autocast(device: torch.device) -> bool:
    """Tell whether autocast is on for a device."""
    kind = device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def linear_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype of the outputs of a linear map with this weight, autocast considered."""
    if is_autocast(weight.device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype
