"""Captions of easy-VQA, derived from the answers to its questions.

The data set has no captions, but nearly every image has a question whose answer gives its colour
and one whose answer gives its shape. The image of ``what color is the circle?`` -> ``red`` is "a
red circle". Two traps: negation is phrased both "not" and "is *no* X present", and some images
have no question that settles colour or shape; their captions say only what is known.
"""

import re
from collections.abc import Iterable

COLORS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")
SHAPES = ("circle", "rectangle", "triangle")


def possible_attributes(pairs: Iterable[tuple[str, str]]) -> tuple[set[str], set[str]]:
    """Return the colours and the shapes that all answers about an image leave possible."""
    colors, shapes = set(COLORS), set(SHAPES)
    for question, answer in pairs:
        words = set(re.findall(r"\w+", question))
        present = True
        if answer in ("yes", "no"):
            present = (answer == "yes") != bool(words & {"not", "no"})
        else:
            words.add(answer)  # "what color is the circle?" presupposes a circle
        for possible, names in ((colors, COLORS), (shapes, SHAPES)):
            if not present:
                possible -= words
            elif words.intersection(names):
                possible &= words
    return colors, shapes


def caption_of(pairs: Iterable[tuple[str, str]]) -> str:
    """Return ``a {color} {shape}``, with what the answers do not settle left out.

    An unknown shape is called "shape", an unknown colour is not mentioned.

    Raises:
        ValueError: If the answers contradict one another.
    """
    pairs = tuple(pairs)
    colors, shapes = possible_attributes(pairs)
    if not colors or not shapes:
        raise ValueError(f"answers contradict one another: {pairs}")
    color = f"{colors.pop()} " if len(colors) == 1 else ""
    shape = shapes.pop() if len(shapes) == 1 else "shape"
    return f"a {color}{shape}"
