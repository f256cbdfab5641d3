"""Object detectors that GenEval judges by."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForObjectDetection
from typing_extensions import override

from callbacks.hub_models import HubModel
from callbacks.metric_part import MetricPart
from pretzel.media.integers import to_integers

COCO_NAMES = {
    "mouse": "computer mouse",
    "remote": "tv remote",
    "keyboard": "computer keyboard",
    # as VOC and, after it, some models of transformers spell them (RT-DETR's, Mask2Former's)
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
"""Classes of COCO that GenEval's prompts call by another name; the other 71 are as COCO has them.

``object_names.txt`` of the published evaluation has the 80 names.
"""
_NUM_AT_A_TIME = 8


@dataclass(frozen=True, kw_only=True)
class Detection:
    """An object that was found.

    Attributes:
        name: Its class.
        score: Confidence, in [0, 1].
        box: Left, top, right and bottom, in pixels.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]


class ObjectDetector(MetricPart, ABC):
    """Finds objects in images."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its part of the metric's name: lower-case letters, digits and dashes."""

    @property
    @abstractmethod
    def classes(self) -> set[str]:
        """Classes of objects that it knows; :meth:`prepare` comes first."""

    @abstractmethod
    def detect(
        self, images: Float[Tensor, "n 3 height width"], confidence: float
    ) -> list[list[Detection]]:
        """Return what each image in [-1, 1] shows with more than this confidence."""


@final
class TransformersDetector(HubModel, ObjectDetector):
    """An object detector of transformers, such as DETR, RT-DETR or YOLOS.

    Labels are compared in lower case. COCO's ``mouse``, ``remote`` and ``keyboard`` are GenEval's
    ``computer mouse``, ``tv remote`` and ``computer keyboard``; VOC's spelling of six others, such
    as ``tvmonitor``, is known.

    Args:
        model: Local folder or hub id of a detector with its image processor, for example
            ``hustvl/yolos-base``.
        labels: By class of the file the model's own label, where they differ, such as
            ``{donut: doughnut}``.
    """

    kind = "object detector"
    loaded_by = (AutoModelForObjectDetection, AutoImageProcessor)

    def __init__(self, model: str, labels: dict[str, str] | None = None) -> None:
        super().__init__(model)
        own = {label.lower(): name for name, label in (labels or {}).items()}
        self._renamed: Mapping[str, str] = COCO_NAMES | own

    @override
    def _use(self, network: Any, processor: Any) -> None:
        labels = {i: text.lower() for i, text in network.config.id2label.items()}
        self._names = {i: self._renamed.get(label, label) for i, label in labels.items()}

    @property
    @override
    def classes(self) -> set[str]:
        return set(self._names.values())

    @override
    def facts(self) -> dict[str, Any]:
        return {"detector": self.model, "weights": self._weights}

    @override
    @torch.no_grad()
    def detect(
        self, images: Float[Tensor, "n 3 height width"], confidence: float
    ) -> list[list[Detection]]:
        found: list[list[Detection]] = []
        pixels = to_integers(images).cpu()
        for first in range(0, len(pixels), _NUM_AT_A_TIME):
            part = list(pixels[first : first + _NUM_AT_A_TIME])
            inputs = self._processor(images=part, return_tensors="pt")
            output = self._network(**inputs.to(self._network.device))
            sizes = [tuple(images.shape[2:])] * len(part)
            found += [
                [
                    Detection(name=self._names[label], score=score, box=tuple(box))
                    for label, score, box in zip(
                        *(one[key].tolist() for key in ("labels", "scores", "boxes")), strict=True
                    )
                ]
                for one in self._processor.post_process_object_detection(
                    output, threshold=confidence, target_sizes=sizes
                )
            ]
        return found
