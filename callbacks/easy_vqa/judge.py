"""A small classifier of coloured shapes, trained on the real easy-VQA images.

It judges generated images (:mod:`callbacks.easy_vqa.shape_accuracy`) and lends its features to FID
and KID (:mod:`callbacks.easy_vqa.judge_features`). Its weights are shipped;
``ablations/stages/judge.yaml`` says how they are rebuilt.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from typing_extensions import override

from pretzel.files.weights import load_half

COLOURS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
SHIPPED_JUDGE = Path(__file__).with_name("judge.safetensors")
SIZE = 32
"""Side of the square the judge looks at, in pixels."""


class Appearance(NamedTuple):
    """Colour and shape, of :data:`COLOURS` and :data:`SHAPES`; None where a caption names none."""

    colour: str | None
    shape: str | None


def read_caption(caption: str) -> Appearance:
    """Return the one colour and the one shape that a caption names.

    Two different colours, or two different shapes, count as unknown.
    """
    words = set(caption.lower().replace(".", " ").replace(",", " ").split())
    colours = [colour for colour in COLOURS if colour in words]
    shapes = [shape for shape in SHAPES if shape in words]
    return Appearance(
        colour=colours[0] if len(colours) == 1 else None,
        shape=shapes[0] if len(shapes) == 1 else None,
    )


def to_judge_size(images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 32 32"]:
    """Resize images for the judge: area averages downwards, bilinear upwards."""
    if images.shape[-2] >= SIZE and images.shape[-1] >= SIZE:
        return adaptive_avg_pool2d(images, SIZE)
    return interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False)


class Judge(nn.Module):
    """A convolutional classifier with one head for colour and one for shape.

    It never rejects: an image of nothing also gets a colour and a shape. Read its verdict together
    with "exactly one connected shape".

    Args:
        width: Channels of the first layer; the others have twice as many.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
                nn.GroupNorm(8, outputs),  # an image's verdict does not depend on its batch
                nn.SiLU(),
            )

        self.trunk = nn.Sequential(
            block(3, width, 1),
            block(width, 2 * width, 2),
            block(2 * width, 2 * width, 1),
            block(2 * width, 2 * width, 2),
        )
        # The largest response finds a shape of a few pixels, the mean measures its extent.
        self.neck = nn.Sequential(nn.Linear(4 * width, 2 * width), nn.SiLU())
        self.colour = nn.Linear(2 * width, len(COLOURS))
        self.shape = nn.Linear(2 * width, len(SHAPES))

    def features(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        """Return the penultimate layer for images in [-1, 1] of any size."""
        maps = self.trunk(to_judge_size(images))
        features: Tensor = self.neck(torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1))
        return features

    @override
    def forward(
        self, images: Float[Tensor, "n 3 height width"]
    ) -> tuple[Float[Tensor, "n 8"], Float[Tensor, "n 3"]]:
        """Return the logits of colours and of shapes."""
        features = self.features(images)
        return self.colour(features), self.shape(features)

    @torch.no_grad()
    def judge(self, images: Float[Tensor, "n 3 height width"]) -> list[tuple[str, str]]:
        """Return the most likely colour and shape of each image."""
        colours, shapes = (logits.argmax(-1).tolist() for logits in self(images))
        return [(COLOURS[i], SHAPES[j]) for i, j in zip(colours, shapes, strict=True)]


def load_judge(path: Path = SHIPPED_JUDGE) -> Judge:
    """Return the judge, frozen and in evaluation mode, from a file with its ``.sha256`` beside it.

    Raises:
        UserError: If a file is missing or the hash differs.
    """
    state = load_half(path)
    with torch.device("meta"):  # training must find the global random state as it was
        judge = Judge()
    judge.load_state_dict(state, assign=True)
    return judge.requires_grad_(False).eval()
