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

_COLOR_WORD = re.compile(rf"\b({'|'.join(COLORS)})\b")
_SHAPE_WORD = re.compile(rf"\b({'|'.join(SHAPES)})\b")
_NEGATION = re.compile(r"\b(not|no)\b")


def possible_attributes(pairs: Iterable[tuple[str, str]]) -> tuple[set[str], set[str]]:
    """Return the colours and the shapes that all answers leave possible.

    Args:
        pairs: Questions about one image, with their answers.

    Returns:
        Possible colours and possible shapes; a set of one means that the answers settle it.
    """
    colors, shapes = set(COLORS), set(SHAPES)
    for question, answer in pairs:
        named = set(_COLOR_WORD.findall(question)) | set(_SHAPE_WORD.findall(question))
        if answer not in ("yes", "no"):
            # "what color is the circle?" presupposes a circle.
            named.add(answer)
            present = True
        else:
            present = (answer == "yes") != bool(_NEGATION.search(question))
        for attributes in (colors, shapes):
            mentioned = attributes & named
            if present and named & set(COLORS if attributes is colors else SHAPES):
                attributes &= named
            elif not present:
                attributes -= mentioned
    return colors, shapes


def caption_of(pairs: Iterable[tuple[str, str]]) -> str:
    """Return ``a {color} {shape}``, with what the answers do not settle left out.

    An unknown shape is called "shape", an unknown colour is not mentioned.

    Args:
        pairs: Questions about one image, with their answers.

    Raises:
        ValueError: If the answers contradict one another.
    """
    pairs = tuple(pairs)
    colors, shapes = possible_attributes(pairs)
    if not colors or not shapes:
        raise ValueError(f"answers contradict one another: {pairs}")
    color = colors.pop() if len(colors) == 1 else None
    shape = shapes.pop() if len(shapes) == 1 else "shape"
    return f"a {color} {shape}" if color else f"a {shape}"
