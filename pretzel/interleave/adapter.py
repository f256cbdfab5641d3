"""Adapters: maps of the vision input into the embedding space of the vision-language model."""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.flow.sizes import check_sizes
from pretzel.typing import Float, Tensor
from pretzel.vlm.base import VLMStream

_SAMPLES = 1024


class Adapter(nn.Module, ABC):
    """Maps features of image positions into the embedding space."""

    @abstractmethod
    def forward(self, features: Float[Tensor, "*b s"]) -> Float[Tensor, "*b h"]:
        """Return embeddings."""

    def start_from(self, vlm: VLMStream) -> None:
        """Take the scale of the text embeddings, once, at construction."""
        return


class _Matched(Adapter, ABC):
    """Linear maps with GELU between them, through layers of the given widths.

    The output starts as large as the embeddings of text, in root mean square: the last layer is
    scaled for standard normal features.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.num_features = widths[0]
        self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(widths[:-1])])
        self.last = nn.Linear(widths[-2], widths[-1])
        nn.init.zeros_(self.last.bias)

    @override
    def forward(self, features: Float[Tensor, "*b s"]) -> Float[Tensor, "*b h"]:
        for linear in self.hidden:
            features = F.gelu(linear(features))
        out: Tensor = self.last(features)
        return out

    def start_from(self, vlm: VLMStream) -> None:
        """Scale the last layer."""
        weight = self.last.weight
        if weight.is_meta:  # built to be checked and counted only
            return
        with torch.no_grad():
            # A generator of its own: no draw from the global random state
            generator = torch.Generator().manual_seed(0)
            features = torch.randn(_SAMPLES, self.num_features, generator=generator).to(weight)
            weight *= vlm.text_scale() / self(features).square().mean().sqrt()


class LinearAdapter(_Matched):
    """One linear map.

    Args:
        features: Width of the vision input (given by the interleaving).
        hidden_size: Hidden size of the vision-language model (given by the interleaving).
    """

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__(features, hidden_size)


class MLPAdapter(_Matched):
    """A GELU MLP, as in LLaVA-1.5 (arXiv 2310.03744).

    Args:
        features: Width of the vision input (given by the interleaving).
        hidden_size: Hidden size of the vision-language model (given by the interleaving).
        width: Hidden width; None for ``hidden_size``.
        num_hidden: Hidden layers.

    Raises:
        UserError: If a size is not positive.
    """

    def __init__(
        self, features: int, hidden_size: int, *, width: int | None = None, num_hidden: int = 1
    ) -> None:
        width = hidden_size if width is None else width
        check_sizes(width=width, num_hidden=num_hidden)
        super().__init__(features, *[width] * num_hidden, hidden_size)


class NoAdapter(Adapter):
    """The identity, for features that are in the embedding space already: the tower's own.

    Args:
        features: Width of the vision input (given by the interleaving).
        hidden_size: Hidden size of the vision-language model (given by the interleaving).

    Raises:
        UserError: If they differ.
    """

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        if features != hidden_size:
            raise UserError(
                "adapter NoAdapter needs features that are as wide as the embeddings of the "
                f"vision-language model, {hidden_size}, got {features}"
            )

    def forward(self, features: Float[Tensor, "*b s"]) -> Float[Tensor, "*b h"]:
        """Return the features."""
        return features


@runtime_checkable
class AdapterFactory(Protocol):
    """Makes an adapter between widths that the interleaving knows."""

    def __call__(self, features: int, hidden_size: int) -> Adapter:
        """Return an adapter."""
        ...
