"""Parameters that a stage trains, and how far they move, by the beginnings of their names."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from pretzel.errors import NotApplicable, UserError


def beginning(argument: str, name: str, names: Iterable[str]) -> str:
    """Return the beginning of parameter names that a user gave as an argument.

    One that ends in ``?`` may begin none of the names, for parts that some arms lack.

    Raises:
        UserError: If it begins none and does not end in ``?``.
    """
    prefix = name.removesuffix("?")
    if not prefix or (prefix == name and not any(n.startswith(prefix) for n in names)):
        roots = sorted({n.split(".")[0] for n in names})
        raise UserError(
            f"{argument}: {name!r} must begin the name of a trainable parameter, which start with "
            f"{roots}, or end in '?'"
        )
    return prefix


def checked_scales(scales: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Return factors on the learning rate by the :func:`beginning` of parameter names.

    Raises:
        UserError: If a name is wrong, or a factor is negative or not finite.
    """
    names = list(names)
    checked: dict[str, float] = {}
    for name, scale in scales.items():
        # 0 is allowed: such parameters keep still, and stay in the optimizer's state
        prefix = beginning("learning_rate_scales", name, names)
        if not 0 <= scale < math.inf:
            raise UserError(f"learning_rate_scales: {name!r} must be 0 or positive, got {scale}")
        checked[prefix] = scale
    return checked


def scaled_groups(
    parameters: Mapping[str, torch.nn.Parameter], scales: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return groups of named parameters, each with ``lr_scale``, the product of its factors."""
    groups: dict[float, list[tuple[str, torch.nn.Parameter]]] = {}
    for name, parameter in parameters.items():
        factor = math.prod(s for prefix, s in scales.items() if name.startswith(prefix))
        groups.setdefault(factor, []).append((name, parameter))
    return [{"params": group, "lr_scale": factor} for factor, group in groups.items()]


def train_only(trains: Sequence[str], parameters: dict[str, torch.nn.Parameter]) -> None:
    """Turn the gradients of parameters off but of those whose :func:`beginning` is named.

    Raises:
        UserError: If a name is wrong.
        NotApplicable: If the model has nothing of what would train.
    """
    chosen = tuple(beginning("trains", name, parameters) for name in trains)
    if not any(name.startswith(chosen) for name in parameters):
        raise NotApplicable(
            f"trains must leave something to train, got {list(trains)}: the model has none of these"
        )
    for name, parameter in parameters.items():
        if not name.startswith(chosen):
            parameter.requires_grad_(False)
