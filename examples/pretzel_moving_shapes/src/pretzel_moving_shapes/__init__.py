"""Videos of one coloured shape that moves across a white ground."""

from pretzel_moving_shapes.metric import MotionAccuracy

__all__ = ["MotionAccuracy"]
