"""Parts of our own for Pretzel; YAML names them by ``class_path: my_project.RunningMeanBlock``."""

from .block import RunningMeanBlock

__all__ = ["RunningMeanBlock"]
