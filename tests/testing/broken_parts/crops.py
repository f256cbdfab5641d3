"""Crops and flips that are wrong in one place."""

import torch
from PIL import ImageOps

from broken_parts import Broken
from datamodules.decoding.crops import CentreCrop, Pad, RandomCrop
from datamodules.decoding.flips import HorizontalFlip
from pretzel.rng import stream


class DrawsFromTheGlobalState(RandomCrop):
    """Crops by numbers that depend on all that was drawn before."""

    def __call__(self, picture, size, draw):
        return super().__call__(picture, size, draw and torch.default_generator)


class CropsInEvaluation(RandomCrop):
    """Goes on cropping by chance where nothing is left to chance."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __call__(self, picture, size, draw):
        self.calls += 1
        return super().__call__(picture, size, draw or stream(self.calls))


class CallsItselfFixed(RandomCrop):
    """Is given random numbers, but says that it needs none: its latents would be kept."""

    is_random = False


class CountsPixels(CentreCrop):
    """Takes the number of pixels for a side: no picture is too small."""

    def limiting_side(self, width, height):
        return width * height


class LeavesTheRest(Pad):
    """Pads a picture only where there is something to pad, and forgets to resize it otherwise."""

    def __call__(self, picture, size, draw):
        return picture if picture.width == picture.height else super().__call__(picture, size, draw)


class EverySecond(HorizontalFlip):
    """Flips in turn, not by chance."""

    turn = 0

    def __call__(self, picture, draw):
        self.turn += 1
        return ImageOps.mirror(picture) if self.turn % 2 else picture


class Brightens(HorizontalFlip):
    """Changes colours on the way."""

    def __call__(self, picture, draw):
        return ImageOps.autocontrast(super().__call__(picture, draw), cutoff=5)


BROKEN = [
    Broken(DrawsFromTheGlobalState, RandomCrop, "crops.squares_belong_to_their_numbers"),
    Broken(LeavesTheRest, Pad, "crops.squares_belong_to_their_numbers"),
    Broken(CropsInEvaluation, RandomCrop, "crops.evaluation_is_not_random"),
    Broken(CallsItselfFixed, RandomCrop, "crops.evaluation_is_not_random"),
    Broken(CountsPixels, CentreCrop, "crops.limiting_side_is_one_of_the_picture"),
    Broken(EverySecond, HorizontalFlip, "flips.flips_belong_to_their_numbers"),
    Broken(Brightens, HorizontalFlip, "flips.flips_only_move_pixels"),
]
