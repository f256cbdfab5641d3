"""The laws of flips."""

import numpy as np

from datamodules.decoding.flips import Flip
from datamodules.laws.crops import SIDE, check_squares, pictures
from pretzel.rng import stream
from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.testing.law_case import Case


def flips_belong_to_their_numbers(case: Case[Flip]) -> Deviation:
    """A flip has another size, depends on more than picture and generator, or changes one."""
    squares = [picture.resize((SIDE, SIDE)) for picture in pictures()]
    check_squares(case.build(), squares)
    return unmeasured("flips")


def flips_only_move_pixels(case: Case[Flip]) -> Deviation:
    """A pixel of a flipped picture is none of the picture."""
    flip = case.build()
    for picture in (picture.resize((SIDE, SIDE)) for picture in pictures()):
        flipped = flip(picture, stream("picture"))
        before, after = (np.asarray(p).reshape(-1, 3).tolist() for p in (picture, flipped))
        same = sorted(before) == sorted(after)
        require(same, f"a picture of {picture.size} has other pixels")
    return unmeasured("pixels")
