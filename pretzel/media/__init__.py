"""Media: how pictures, videos and sounds are read, shown and written."""

from pretzel.media.base import Medium
from pretzel.media.pictures import Pictures
from pretzel.media.sounds import Sound, Sounds
from pretzel.media.videos import Video, Videos

__all__ = ["Medium", "Pictures", "Sound", "Sounds", "Video", "Videos"]
