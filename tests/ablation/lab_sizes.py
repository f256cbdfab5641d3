"""Modules whose sizes are known by arithmetic, for plans that count and match them."""

from abc import ABC
from typing import Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from pretzel.errors import NotApplicable, UserError


class Layers(nn.Module, ABC):
    width: int


class Square(Layers):
    """One matrix: width^2 parameters, 2 width^2 FLOPs a row."""

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width must be divisible by heads, got {width} and {heads}")
        self.width = width
        self.inner = nn.Linear(width, width, bias=False)


class Pair(Layers):
    """Two matrices."""

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width must be divisible by heads, got {width} and {heads}")
        self.width = width
        self.inner = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(2)))


class Longer(Layers):
    """A matrix with more rows."""

    def __init__(self, width: int, rows: int = 1) -> None:
        super().__init__()
        self.inner = nn.Linear(width, rows, bias=False)


class Wide(Layers):
    """Has no integer called width."""

    def __init__(self, breadth: int = 8) -> None:
        super().__init__()
        self.width = breadth
        self.inner = nn.Linear(breadth, breadth, bias=False)


class Never(Layers):
    def __init__(self, width: int = 4) -> None:
        raise NotApplicable("there is no such model")


class Network(LightningModule):
    """Layers, and a frozen matrix of 10 numbers."""

    def __init__(
        self,
        layers: Layers,
        make_optimizer: OptimizerCallable = torch.optim.SGD,
        seed: int = 0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.frozen = nn.Parameter(torch.zeros(10), requires_grad=False)

    def example_forward(self) -> None:
        like = next(self.layers.parameters())
        places = torch.arange(6).remainder(2).nonzero()[:, 0]  # their number depends on data
        self.layers.inner(like.new_zeros(6, self.layers.width)[places])

    def export(self, path: str) -> None:
        raise NotImplementedError


@runtime_checkable
class LayersFactory(Protocol):
    def __call__(self, width: int) -> Layers: ...


class Factories(LightningModule):
    """Calls one factory and keeps the other."""

    def __init__(self, made: LayersFactory, kept: OptimizerCallable) -> None:
        super().__init__()
        self.layers = made(4)
        self.kept = kept


class Silent(LightningModule):
    """Offers no example, and looks at data while it is made."""

    def __init__(self, layers: Layers, peeks: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.layers = layers
        if peeks and float(next(layers.parameters()).sum()) > 1e9:
            raise UserError("never")
