"""Accuracy of colour, shape and number of shapes in generated easy-VQA images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from typing_extensions import override

from callbacks.easy_vqa.judge import Judge, load_judge, read_caption
from callbacks.easy_vqa.judge_features import judge_facts
from callbacks.generation_metric import GenerationMetric

FOREGROUND = 0.7
"""A pixel belongs to a shape if its smallest channel, in [0, 1], is below this.

easy-VQA backgrounds are pastel, each channel at least 0.784 (200 of 255); every shape's colour has
a channel of at most 0.502 (gray). On all 5,000 real images, at 64 and at 32 pixels, the rule finds
exactly one connected shape.
"""
SPECKLE = 0.003
"""Components below this fraction of the image are ignored: under 4 of 32x32 pixels.

The smallest real shape covers 7 of 32x32 pixels (0.0068).
"""
LARGEST = 0.4
"""A component above this fraction of the image is no shape on a ground: such an image has none.

The largest real shape covers 0.28 of the image. Without this rule noise, all of it foreground and
connected, would count as one shape.
"""
_VALUES = ("right", "right_colour", "right_shape", "one_shape", "right_and_one_shape")


class ShapeAccuracy(GenerationMetric):
    """Judge colour, shape and connectedness of generated easy-VQA images.

    Only prompts that name one colour and one shape can be judged. ``right`` is the fraction with
    the right colour *and* shape, ``right_colour`` and ``right_shape`` with one of them. The judge
    never rejects, so ``one_shape``, the fraction with exactly one connected shape, stands beside
    it, and ``right_and_one_shape`` is the fraction that passes both. ``shape_n`` is the number of
    images. Chance is 1/24 for ``right``; on real test images it is 1.00.
    """

    def __init__(self) -> None:
        self._judge: Judge | None = None
        self._device = torch.device("cpu")
        self.reset()

    @override
    def prepare(self, device: torch.device) -> None:
        if self._judge is None:
            self._judge = load_judge()
        self._judge.to(device)
        self._device = device

    @override
    def describe(self) -> str:
        return (
            "right, right_colour, right_shape: the shipped easy-VQA judge at 32x32; one_shape: "
            f"one 8-connected component of pixels with a channel below {FOREGROUND}, components "
            f"below {SPECKLE:.1%} of the image ignored, above {LARGEST:.0%} not a shape"
        )

    @override
    def names(self) -> set[str]:
        return {*_VALUES, "shape_n"}

    @override
    def facts(self) -> dict[str, dict[str, Any]]:
        own = {} if self._judge is None else judge_facts(self._judge)
        return dict.fromkeys(("right", "right_colour", "right_shape", "right_and_one_shape"), own)

    @override
    def accepts(self, prompt: str) -> bool:
        return all(read_caption(prompt))

    @override
    def reset(self) -> None:
        # right colour, right shape, one shape
        self._hits: list[tuple[bool, bool, bool]] = []

    @override
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        assert self._judge is not None, "prepare() comes first"
        looks = self._judge.judge(images.to(self._device))
        rows = zip(map(read_caption, prompts), looks, count_shapes(images), strict=True)
        self._hits += [
            (caption.colour == colour, caption.shape == shape, count == 1)
            for caption, (colour, shape), count in rows
        ]

    @override
    def image_scores(self) -> dict[str, list[float]]:
        colour, shape, single = np.array(self._hits, dtype=float).reshape(-1, 3).T
        right = colour * shape
        values = zip(_VALUES, (right, colour, shape, single, right * single), strict=True)
        return {name: value.tolist() for name, value in values}

    @override
    def compute(self) -> dict[str, float]:
        n = float(len(self._hits))
        values = {name: sum(own) / n for name, own in self.image_scores().items()} if n else {}
        return values | {"shape_n": n}


def count_shapes(images: Float[Tensor, "n 3 height width"]) -> list[int]:
    """Return the number of 8-connected shapes of each image in [-1, 1].

    Speckles are left out; an image with too large a component has no shape.
    """
    counts = []
    for mask in ((images.amin(1) + 1) / 2 < FOREGROUND).cpu().numpy():
        # 8-connected: a thin diagonal edge does not cut a shape in two
        components, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(components.ravel())[1:]
        count = int((sizes >= SPECKLE * mask.size).sum())
        counts.append(0 if (sizes > LARGEST * mask.size).any() else count)
    return counts
