"""Classifiers of the colour of an object."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoProcessor, CLIPModel
from typing_extensions import override

from callbacks.geneval.prompts import COLOURS, Colour
from callbacks.hub_models import HubModel
from callbacks.metric_part import MetricPart
from pretzel.media.integers import to_integers

_TEMPLATES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}",
              "a photo of a {colour} object")  # fmt: skip
_RGB: dict[Colour, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "orange": (255, 165, 0),
    "yellow": (255, 255, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
    "pink": (255, 192, 203),
    "brown": (165, 42, 42),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
"""Colours of these names in CSS."""


class ColourClassifier(MetricPart, ABC):
    """Tells which of GenEval's ten colours an object has."""

    @abstractmethod
    def classify(self, crops: Sequence[Float[Tensor, "3 _ _"]], name: str) -> list[Colour]:
        """Return the colour of each object of this class.

        Args:
            crops: Pictures in [-1, 1] of the objects' boxes, of any size, at least one.
            name: Class of the objects.
        """


@final
class CLIPColours(HubModel, ColourClassifier):
    """Zero-shot classification by a CLIP (Ghosh et al. 2023, arXiv 2310.11513, section 3).

    A colour is the mean embedding of three texts about a colour and a class; the nearest one is
    that of the object.

    Args:
        model: Local folder or hub id of a CLIP with its processor; published is
            ``openai/clip-vit-large-patch14``.
    """

    kind = "CLIP"
    loaded_by = (CLIPModel, AutoProcessor)

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._colours: dict[str, Float[Tensor, "colours d"]] = {}

    @override
    def facts(self) -> dict[str, Any]:
        return {"colours": self.model, "colour_weights": self._weights}

    @override
    @torch.no_grad()
    def classify(self, crops: Sequence[Float[Tensor, "3 _ _"]], name: str) -> list[Colour]:
        if name not in self._colours:
            self._colours[name] = self._embed_colours(name)
        pictures = [to_integers(crop[None])[0].cpu() for crop in crops]
        inputs = self._processor(images=pictures, return_tensors="pt").to(self._network.device)
        images = self._network.get_image_features(**inputs).pooler_output
        nearest = (normalize(images, dim=-1) @ self._colours[name].T).argmax(dim=1)
        return [COLOURS[i] for i in nearest.tolist()]

    def _embed_colours(self, name: str) -> Float[Tensor, "colours d"]:
        texts = [t.format(colour=colour, name=name) for colour in COLOURS for t in _TEMPLATES]
        inputs = self._processor(text=texts, return_tensors="pt", padding=True, truncation=True)
        found = self._network.get_text_features(**inputs.to(self._network.device)).pooler_output
        of_colours = normalize(found, dim=-1).reshape(len(COLOURS), len(_TEMPLATES), -1)
        return normalize(of_colours.mean(dim=1), dim=-1)


@final
class MeanColours(ColourClassifier):
    """The named colour that is nearest to the mean of the middle of a box, in RGB.

    It needs no network and is rough: the middle is half the box's width and height, and what is
    shaded or patterned may be given to another colour.
    """

    @override
    def prepare(self, device: torch.device) -> None:
        pass

    @override
    def facts(self) -> dict[str, Any]:
        return {"colours": "nearest to the mean of the middle of the box"}

    @override
    def classify(self, crops: Sequence[Float[Tensor, "3 _ _"]], name: str) -> list[Colour]:
        means = torch.stack([_middle(crop).mean(dim=(1, 2)) for crop in crops])
        named = torch.tensor([_RGB[colour] for colour in COLOURS], device=means.device) / 127.5 - 1
        return [COLOURS[i] for i in torch.cdist(means, named).argmin(dim=1).tolist()]


def _middle(crop: Float[Tensor, "3 _ _"]) -> Float[Tensor, "3 _ _"]:
    top, left = (side // 4 for side in crop.shape[1:])
    return crop[:, top : crop.shape[1] - top, left : crop.shape[2] - left]
