"""How images were sampled, in plain types: what ``sampling.json`` holds."""

import inspect
from collections.abc import Sequence
from typing import Any

from pretzel.sampling.denoisers import Denoiser
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.samplers import Sampler, Work


def sampling_record(sampler: Sampler, guidance: Guidance, denoiser: Denoiser) -> dict[str, Any]:
    """Return what decides how images are sampled.

    That is the three, as :func:`described`, and the sampler's ``state`` (such as a schedule it has
    found).
    """
    return {
        "sampler": described(sampler),
        "state": sampler.state(),
        "guidance": described(guidance),
        "denoiser": described(denoiser),
    }


def work_record(work: Sequence[Work]) -> dict[str, list[int]]:
    """Return what images took: evaluations of each block, in all and those that were taken back."""
    return {
        "evaluations_per_block": [block.evaluations for block in work],
        "provisional_per_block": [block.provisional for block in work],
    }


def described(part: object) -> dict[str, Any]:
    """Return a part as a configuration names it, ``class_path`` and ``init_args``.

    ``init_args`` has those arguments of its constructor that the part keeps as attributes of the
    same name: numbers, words, lists of them, and samplers, guidances and denoisers, described
    likewise.
    """
    kind = type(part)
    arguments: dict[str, Any] = {}
    for name in inspect.signature(kind).parameters:
        value = getattr(part, name, inspect.Parameter.empty)
        if isinstance(value, Sampler | Guidance | Denoiser):
            arguments[name] = described(value)
        elif _is_plain(value):
            arguments[name] = value
    configuration: dict[str, Any] = {"class_path": f"{kind.__module__}.{kind.__qualname__}"}
    return configuration | ({"init_args": arguments} if arguments else {})


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
