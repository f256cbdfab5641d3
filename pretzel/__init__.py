"""Pretzel: an open STARFlow2 and the instrument to ablate it.

Example::

    import pretzel

    model = pretzel.load("runs/quickstart/stacked/seed0")
    picture, = model.generate(["a red circle"], seed=0)
    print(model.ask(picture, "what color is the shape?"))
    print(model.log_prob([picture], ["a red circle"]))
    print(pretzel.results("runs/quickstart"))

Nothing heavy is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretzel.ablation.report.results import results
    from pretzel.errors import UserError
    from pretzel.generation.conversation import Conversation
    from pretzel.training.loading import build, load
    from pretzel.training.text_image_model import TextImageModel

__version__ = "0.1.0"
__all__ = ["Conversation", "TextImageModel", "UserError", "__version__", "build", "load", "results"]

_HOMES = {
    "Conversation": "pretzel.generation.conversation",
    "TextImageModel": "pretzel.training.text_image_model",
    "UserError": "pretzel.errors",
    "build": "pretzel.training.loading",
    "load": "pretzel.training.loading",
    "results": "pretzel.ablation.report.results",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module 'pretzel' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
