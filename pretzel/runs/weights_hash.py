"""Hash of the weights that a module trains: equal where two trainings are equal bit for bit."""

import hashlib

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pretzel.files.sharded_tensors import local


@torch.no_grad()
def trained_weights_hash(module: nn.Module) -> str:
    """Return a hash of names and bits of the parameters that train, and of all buffers.

    Frozen parameters are left out: what depends on them differs where they matter, and where they
    do not, two trainings are the same though they differ. Buffers are in it because training
    changes some (the statistics of a batch norm). Averages that a callback keeps are no weights of
    the module. Of weights that are dealt out to processes the part of this one counts.
    """
    named: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if p.requires_grad}
    named |= dict(module.named_buffers())
    digest = hashlib.sha256()
    for name, tensor in sorted(named.items()):
        if is_lazy(tensor):
            continue  # no memory yet
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        content = local(tensor).cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(content.numpy().data)  # not copied
    return digest.hexdigest()[:16]
