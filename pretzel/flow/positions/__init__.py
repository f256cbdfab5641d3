"""Positional encodings: of a text axis and of the coordinates of the latent grid."""

from pretzel.flow.positions.axial import AxialPositions, GridEmbedding
from pretzel.flow.positions.base import Positions, PositionsFactory
from pretzel.flow.positions.learned import LearnedPositions
from pretzel.flow.positions.rotary import AxialRotary, rotate
from pretzel.flow.positions.starflow import StarflowPositions

__all__ = [
    "AxialPositions",
    "AxialRotary",
    "GridEmbedding",
    "LearnedPositions",
    "Positions",
    "PositionsFactory",
    "StarflowPositions",
    "rotate",
]
