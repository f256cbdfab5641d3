"""Names for objects of transformers, whose classes are chosen at run time and have no types."""

from typing import Any, TypeAlias

Config: TypeAlias = Any  # the statement needs Python 3.12
Model: TypeAlias = Any
TextTokenizer: TypeAlias = Any
