"""Tensors that may be dealt out to processes: their part in this one, and whole for files."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that is in this process, in the same memory, detached."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def all_whole(tensors: Mapping[str, Tensor], is_kept: bool = True) -> dict[str, Tensor]:
    """Return tensors whole, those that were dealt out on the CPU; all processes must call it.

    Where they are not kept, those that were dealt out are missing from what is returned.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            made[name] = tensor
            continue
        whole = tensor.full_tensor()
        if is_kept:
            made[name] = whole.cpu()
    return made


@torch.no_grad()
def copy_whole(target: Tensor, source: Tensor) -> None:
    """Copy a whole tensor into one that may be dealt out; all processes must call it."""
    if isinstance(target, DTensor) and not isinstance(source, DTensor):
        source = source.to(target.device)
        source = distribute_tensor(source, target.device_mesh, target.placements)
    target.copy_(source)
