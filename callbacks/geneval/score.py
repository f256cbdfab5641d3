"""GenEval's accuracies, by any object detector."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, final

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from callbacks.generation_metric import GenerationMetric
from callbacks.geneval.colours import ColourClassifier
from callbacks.geneval.detectors import Detection, ObjectDetector
from callbacks.geneval.prompts import TASKS, Colour, GenEvalPrompt, Task, read_prompts
from callbacks.geneval.rules import is_right, keep
from pretzel.errors import NothingToMeasure, UserError


@final
class GenEval(GenerationMetric):
    """Whether images show the objects of their prompts (Ghosh et al. 2023, arXiv 2310.11513).

    Logs ``geneval_<detector>_<task>``, the share of right images, of ``single_object``,
    ``two_object``, ``counting``, ``colors``, ``position`` and ``color_attr``,
    ``geneval_<detector>``, the mean of all tasks of the file, and ``geneval_<detector>_images``,
    the share of all images. An image is right if its classes, numbers, colours and places are.

    The rules are the published ones. What differs: published figures are of a Mask2Former, whose
    masks take the background from colours; here a detector gives boxes, and the name carries it.
    ``callbacks.Generation`` takes the prompts of the file where it has none. Images of a prompt
    that stands in several lines belong to them in turn.

    Args:
        metadata: The published ``evaluation_metadata.jsonl``, or a file like it; or a folder of
            images in the published layout, whose own prompts these are.
        detector: Finds the objects.
        colours: Tells their colours.
        confidence: Objects must be above it.
        counting_confidence: The same for prompts of the task ``counting``.
        max_overlap: Intersection over union with a more certain object of the class above which an
            object is left out; 1, as published, leaves out none.
    """

    def __init__(
        self,
        metadata: str,
        detector: ObjectDetector,
        colours: ColourClassifier,
        confidence: float = 0.3,
        counting_confidence: float = 0.9,
        max_overlap: float = 1.0,
    ) -> None:
        limits = {
            "confidence": confidence,
            "counting_confidence": counting_confidence,
            "max_overlap": max_overlap,
        }
        for name, value in limits.items():
            if not 0 <= value <= 1:
                raise UserError(f"GenEval: {name} must be between 0 and 1, got {value}")
        self.metadata = metadata
        self.detector = detector
        self.colours = colours
        self.confidence = confidence
        self.counting_confidence = counting_confidence
        self.max_overlap = max_overlap
        self.name = f"geneval_{detector.name}"
        self.reset()

    @cached_property
    def _prompts(self) -> list[GenEvalPrompt]:
        return read_prompts(self.metadata)

    @cached_property
    def _lines(self) -> dict[str, list[GenEvalPrompt]]:
        """Lines of the file by their prompt."""
        lines: dict[str, list[GenEvalPrompt]] = {}
        for line in self._prompts:
            lines.setdefault(line.prompt, []).append(line)
        return lines

    @override
    def own_prompts(self) -> list[str]:
        return [line.prompt for line in self._prompts]

    @override
    def accepts(self, prompt: str) -> bool:
        return prompt in self._lines

    @override
    def prepare(self, device: torch.device) -> None:
        self.detector.prepare(device)
        known = self.detector.classes
        if unknown := {name for line in self._prompts for name in line.classes} - known:
            raise UserError(
                f"GenEval: the detector {self.detector.name} must know the classes of "
                f"{self.metadata}, but {min(unknown)!r} is not among its {len(known)}"
            )
        self.colours.prepare(device)

    @override
    def describe(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self._own_facts().items())
        return f"{self.name}: {self.metadata}, {facts}"

    def _own_facts(self) -> dict[str, Any]:
        limits = {
            "confidence": self.confidence,
            "counting_confidence": self.counting_confidence,
            "max_overlap": self.max_overlap,
        }
        return self.detector.facts() | self.colours.facts() | limits

    @override
    def names(self) -> set[str]:
        means = [self.name, *(f"{self.name}_{task}" for task in TASKS)]
        return {f"{self.name}_images", *means, *(f"{name}_n" for name in means)}

    @override
    def facts(self) -> dict[str, dict[str, Any]]:
        own = self._own_facts()
        ends = {"_images", *(f"_{task}" for task in self._tasks)} | (
            set() if self._absent else {""}
        )
        return {f"{self.name}{end}": own for end in ends}

    @property
    def _absent(self) -> set[Task]:
        """Tasks of the file without an image."""
        return {line.tag for line in self._prompts} - set(self._tasks)

    @override
    def reset(self) -> None:
        self._seen: Counter[str] = Counter()
        self._tasks: list[Task] = []
        self._right: list[bool] = []

    @override
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        least = min(self.confidence, self.counting_confidence)
        for image, text, detections in zip(
            images, prompts, self.detector.detect(images, least), strict=True
        ):
            lines = self._lines[text]
            line = lines[self._seen[text] % len(lines)]
            self._seen[text] += 1
            confidence = self.counting_confidence if line.tag == "counting" else self.confidence
            found = keep(detections, confidence, self.max_overlap)
            self._tasks.append(line.tag)
            self._right.append(is_right(line, found, partial(self._colours_of, image)))

    def _colours_of(
        self, image: Float[Tensor, "3 height width"], objects: Sequence[Detection], name: str
    ) -> list[Colour]:
        return self.colours.classify([_crop(image, one) for one in objects], name)

    @override
    def image_scores(self) -> dict[str, list[float]]:
        return {f"{self.name}_images": [float(right) for right in self._right]}

    @override
    def compute(self) -> dict[str, float]:
        if not self._right:
            raise NothingToMeasure(f"{self.name} needs at least 1 generated image, got 0")
        tasks: dict[str, list[bool]] = {}
        for task, right in zip(self._tasks, self._right, strict=True):
            tasks.setdefault(task, []).append(right)
        means = {task: sum(own) / len(own) for task, own in tasks.items()}
        values = {f"{self.name}_{task}": mean for task, mean in means.items()}
        values |= {f"{self.name}_{task}_n": float(len(own)) for task, own in tasks.items()}
        n = len(self._right)
        values |= {f"{self.name}_images": sum(self._right) / n, f"{self.name}_n": float(n)}
        if self._absent:
            first = min(self._absent)
            rank_zero_warn(f"{self.name} is the mean of all tasks, but {first} has no image")
            return values
        return values | {self.name: sum(means.values()) / len(means)}


def _crop(image: Float[Tensor, "3 height width"], one: Detection) -> Float[Tensor, "3 _ _"]:
    """Return what is in a box rounded to pixels, at least one of them."""
    left, top, right, bottom = (round(edge) for edge in one.box)
    height, width = image.shape[1:]
    top, left = min(max(top, 0), height - 1), min(max(left, 0), width - 1)
    return image[:, top : max(bottom, top + 1), left : max(right, left + 1)]
