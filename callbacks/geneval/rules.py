"""GenEval's rules: whether the objects that were found are those of the prompt.

They are those of Ghosh et al. 2023 (arXiv 2310.11513, section 3) and of the published evaluation.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torchvision.ops import nms

from callbacks.geneval.detectors import Detection
from callbacks.geneval.prompts import Colour, GenEvalPrompt, IncludedObjects, Relation

MARGIN = 0.1
"""Centres must be further apart than this share of both sizes to be in a relation."""

Found = Mapping[str, Sequence[Detection]]
"""Objects by class, those of the highest confidence first."""


def keep(detections: Sequence[Detection], confidence: float, max_overlap: float) -> Found:
    """Return objects above a confidence, without those that overlap a more certain one.

    Args:
        detections: Of one image.
        confidence: Objects must be above it.
        max_overlap: Intersection over union with a more certain object of the same class above
            which an object is left out; 1 leaves out none.
    """
    found: dict[str, list[Detection]] = {}
    for one in sorted(detections, key=lambda one: -one.score):
        if one.score > confidence:
            found.setdefault(one.name, []).append(one)
    for name, objects in found.items():
        boxes = torch.tensor([one.box for one in objects])
        kept = nms(boxes, torch.tensor([one.score for one in objects]), max_overlap)
        found[name] = [objects[i] for i in sorted(kept.tolist())]
    return found


def is_right(
    prompt: GenEvalPrompt,
    found: Found,
    colours: Callable[[Sequence[Detection], str], list[Colour]],
) -> bool:
    """Return whether an image shows all that its prompt includes, and nothing that it excludes.

    Colours and places are those of the most certain objects, as many as there must be.

    Args:
        prompt: Prompt of the image.
        found: Objects in the image.
        colours: Returns the colours of objects of a class.
    """
    chosen: list[Sequence[Detection]] = []
    for wanted in prompt.include:
        objects = found.get(wanted.name, ())[: wanted.count]
        if len(objects) < wanted.count or not _in_place(wanted, objects, chosen):
            return False
        if wanted.color and set(colours(objects, wanted.name)) != {wanted.color}:
            return False
        chosen.append(objects)
    return all(len(found.get(no.name, ())) < no.count for no in prompt.exclude)


def _in_place(
    wanted: IncludedObjects, objects: Sequence[Detection], chosen: Sequence[Sequence[Detection]]
) -> bool:
    if wanted.position is None:
        return True
    relation, other = wanted.position
    return all(relation in relations(a, b) for a in objects for b in chosen[other])


def relations(a: Detection, b: Detection) -> set[Relation]:
    r"""Return where a is relative to b.

    With the offset $o$ of the centres, a relation holds along an axis if
    $\max(|o_i| - 0.1 (s_i + s'_i), 0) / \lVert o\rVert > 1/2$, where $s$ and $s'$ are the sizes.
    """
    offsets = [(a.box[i] + a.box[i + 2] - b.box[i] - b.box[i + 2]) / 2 for i in (0, 1)]
    sizes = [a.box[i + 2] - a.box[i] + b.box[i + 2] - b.box[i] for i in (0, 1)]
    distance = math.hypot(*offsets)
    names: tuple[tuple[Relation, Relation], ...] = (("left of", "right of"), ("above", "below"))
    return {
        pair[offset > 0]
        for pair, offset, size in zip(names, offsets, sizes, strict=True)
        if abs(offset) - MARGIN * size > distance / 2
    }
