"""How often images show the scenes of their captions, by skill, seen and held out."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from callbacks.generation_metric import GenerationMetric
from callbacks.scenes.detector import LEAST_MATCH, SceneDetector
from callbacks.scenes.rules import Verdict, judge
from datamodules.scenes.captions import CaptionReader
from datamodules.scenes.description import SKILLS, Description
from datamodules.scenes.held_out import HeldOut
from datamodules.scenes.look import Look
from pretzel.errors import NothingToMeasure, UserError

_PARTS = ("number", "kinds", "colours", "relations")


@final
class SceneAccuracy(GenerationMetric):
    """Whether images show all that captions of :class:`datamodules.Scenes` say, and nothing else.

    Logs ``scenes/<skill>``, the share of right images of captions whose combinations training may
    show, and ``scenes/<skill>_held_out`` of those it never does, for ``single``, ``two_objects``,
    ``counting``, ``colours``, ``position``, ``attribution`` and ``dense``, each with its number of
    images; and of all images ``scenes/right``, and apart from one another ``scenes/right_number``
    (of objects), ``scenes/right_kinds``, and where the caption says any ``scenes/right_colours``
    and ``scenes/right_relations``. The detector needs no training: it compares what stands out from
    a smooth ground with what the look draws.

    Args:
        look: The look of the data.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self._read = CaptionReader(look)
        self._held_out = HeldOut(look)
        self.reset()

    @cached_property
    def _detector(self) -> SceneDetector:
        return SceneDetector(self.look)

    @override
    def prepare(self, device: torch.device) -> None:
        assert self._detector

    @override
    def describe(self) -> str:
        return (
            f"scenes/*: templates of {type(self.look).__name__} with {len(self.look.kinds)} kinds "
            f"and {len(self.look.colours)} colours, at least {LEAST_MATCH} explained"
        )

    @override
    def facts(self) -> dict[str, dict[str, Any]]:
        fact = {"look": type(self.look).__name__, "kinds": len(self.look.kinds)}
        values = self.compute() if self._judged else {}
        return {name: fact for name in values if not name.endswith("_n")}

    @override
    def names(self) -> set[str]:
        parts = (f"right_{part}" for part in _PARTS)
        names = {"right", *parts, *SKILLS, *(f"{skill}_held_out" for skill in SKILLS)}
        return {f"scenes/{name}{end}" for name in names for end in ("", "_n")}

    @override
    def accepts(self, prompt: str) -> bool:
        try:
            self._read(prompt)
        except UserError:
            return False
        return True

    @override
    def reset(self) -> None:
        self._judged: list[tuple[Description, Verdict]] = []

    @override
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        for image, prompt in zip(images.cpu().numpy(), prompts, strict=True):
            description = self._read(prompt)
            self._judged.append((description, judge(description, self._detector(image))))

    @override
    def image_scores(self) -> dict[str, list[float]]:
        return {
            "scenes/right": [float(verdict.right) for _, verdict in self._judged],
            "scenes/right_number": [float(verdict.number) for _, verdict in self._judged],
            "scenes/right_kinds": [float(verdict.kinds) for _, verdict in self._judged],
        }

    @override
    def compute(self) -> dict[str, float]:
        if not self._judged:
            raise NothingToMeasure("scenes needs at least 1 generated image, got 0")
        groups: dict[str, list[bool]] = {}
        for description, verdict in self._judged:
            new = "_held_out" if self._held_out.axes_of(description) else ""
            groups.setdefault(f"{description.skill}{new}", []).append(verdict.right)
            groups.setdefault("right", []).append(verdict.right)
            for part in _PARTS:
                if (is_right := getattr(verdict, part)) is not None:
                    groups.setdefault(f"right_{part}", []).append(is_right)
        values = {f"scenes/{name}": sum(own) / len(own) for name, own in groups.items()}
        return values | {f"scenes/{name}_n": float(len(own)) for name, own in groups.items()}
