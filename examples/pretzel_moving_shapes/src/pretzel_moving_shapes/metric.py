"""Accuracy of generated videos: the colour, the shape and the direction of the caption."""

from collections.abc import Sequence

import numpy as np
import torch
from callbacks import GenerationMetric
from jaxtyping import Float
from pretzel.media import Videos
from torch import Tensor
from typing_extensions import override

from pretzel_moving_shapes.judge import look
from pretzel_moving_shapes.world import read_caption

_VALUES = ("right", "right_colour", "right_shape", "right_direction", "steady")


class MotionAccuracy(GenerationMetric):
    """Judge generated videos by their captions.

    ``right`` is the fraction in which colour, shape and direction are right; ``right_colour``,
    ``right_shape`` and ``right_direction`` are the fractions in which one is. ``steady`` is the
    fraction in which every frame shows about as much as the others, and moves on from the one
    before. ``motion_n`` is the number of videos. Chance is 1/72 for ``right``; on all real videos
    every value is 1.
    """

    measures = Videos

    def __init__(self) -> None:
        self.reset()

    @override
    def prepare(self, device: torch.device) -> None:
        return

    @override
    def describe(self) -> str:
        return "right: colour by hue, shape by overlap, direction by the centres of the frames"

    @override
    def accepts(self, prompt: str) -> bool:
        return read_caption(prompt) is not None

    @override
    def names(self) -> set[str]:
        return {*_VALUES, "motion_n"}

    @override
    def reset(self) -> None:
        self._hits: list[tuple[bool, ...]] = []

    @override
    def update(self, images: Float[Tensor, "n t 3 side side"], prompts: Sequence[str]) -> None:
        for video, prompt in zip(images.cpu().numpy(), prompts, strict=True):
            seen = look(video)
            parts = (seen.colour, seen.shape, seen.direction)
            hits = [a == b for a, b in zip(parts, read_caption(prompt) or (), strict=True)]
            self._hits.append((all(hits), *hits, seen.steady))

    @override
    def compute(self) -> dict[str, float]:
        n = float(len(self._hits))
        if not self._hits:
            return {"motion_n": n}
        means = np.array(self._hits).mean(axis=0)
        return {name: float(value) for name, value in zip(_VALUES, means, strict=True)} | {
            "motion_n": n
        }
