"""Optimizers of the command line beside a module that makes its own: refused with the right key."""

from typing import Any

from pretzel.errors import UserError
from pretzel.runs.config.class_paths import named_class
from pretzel.runs.config.explain import parameters
from pretzel.runs.config.overlay import Config, at

_WORDS = {"optimizer": "optim", "lr_scheduler": "sched"}


def refuse_optimizers(config: Config) -> None:
    """Refuse ``optimizer`` and ``lr_scheduler`` where the module makes its own.

    Lightning would replace the module's optimizer by the one, and without that leave the other out,
    both in silence. A module without ``configure_optimizers`` has no other way.

    Raises:
        UserError: With the key of the module that does it.
    """
    given = [key for key in _WORDS if config.values.get(key)]
    if not given:
        return
    from lightning.pytorch import LightningModule

    model: Any = at(config.values, ("model", "class_path")) or config.values.get("model")
    module = named_class(model, (LightningModule,)) if isinstance(model, str) else None
    if not isinstance(module, type) or not issubclass(module, LightningModule):
        return  # which the parser tells
    key = given[0]
    source = next((source for path, source in config.sources.items() if path[0] == key), None)
    where = f"{source}: {key}" if source else key
    if module.configure_optimizers is not LightningModule.configure_optimizers:
        named = f"{module.__module__}.{module.__qualname__}"
        own = [f"model.init_args.{name}" for name in parameters(named) if _WORDS[key] in name]
        advice = f"set {' or '.join(own)}" if own else "and takes no argument for it"
        raise UserError(f"{where}: {module.__name__} makes its own, {advice}")
    if "optimizer" not in given:
        raise UserError(f"{where}: is used with an optimizer alone: set optimizer as well")
