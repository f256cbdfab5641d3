"""Initial weights keyed by seed and parameter name: common random numbers for initialisation.

Built in the usual way, each part's weights depend on how many numbers the parts before it have
drawn: an arm with one layer more begins with other weights everywhere behind it. Here a model is
built once, while what its constructors draw from the global random state, and compute from it, is
written down. Then the same operations run again, each draw from a stream of its own, which belongs
to the name of the parameter that it ends in. So the distributions are the constructors', whatever
class they are of, and parameters that agree in name and shape begin equal.

Draws that a constructor takes from a generator of its own, or has seeded itself inside of
``torch.random.fork_rng``, stay as they are (without the latter it is refused).
Operations run again as often as the first time, so an initialisation that draws until it likes
what it has drawn is not followed. torch's truncated normal does that, and is replaced.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from pretzel.rng import stream
from pretzel.runs.seeding_guard import built_without_seeding

M = TypeVar("M", bound=nn.Module)


def built_by_name(build: Callable[[], M], seed: int) -> M:
    """Build a module whose initial weights belong to the seed of the run and their names.

    The global random state of torch is left as it was. On the meta device there are no weights to
    name.

    Raises:
        UserError: If a constructor seeds the global random states.
    """
    with torch.random.fork_rng(devices=[]):
        draws = RecordedDraws(seed)
        with draws, _without_loops():
            module = built_without_seeding(build)
        draws.redraw(module)
    return module


@contextmanager
def _without_loops() -> Iterator[None]:
    module: Any = nn.init
    before = module._no_grad_trunc_normal_
    module._no_grad_trunc_normal_ = _truncated_normal
    try:
        yield
    finally:
        module._no_grad_trunc_normal_ = before


def _truncated_normal(
    tensor: Tensor,
    mean: float,
    std: float,
    a: float,
    b: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill with a normal truncated to [a, b], by the inverse of its distribution function."""
    low, high = (0.5 * (1 + math.erf((x - mean) / (std * math.sqrt(2)))) for x in (a, b))
    with torch.no_grad():
        tensor.uniform_(2 * low - 1, 2 * high - 1, generator=generator).erfinv_()
        return tensor.mul_(std * math.sqrt(2)).add_(mean).clamp_(a, b)


@dataclass(eq=False)
class _Operation:
    """One call that drew random numbers or used what was drawn.

    Attributes:
        draws: Whether it draws.
        changed: Its arguments that are changed in place.
        before: Those in which nothing random was yet, with copies.
        results: The tensors that it returned.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    draws: bool
    changed: list[Tensor]
    before: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    results: list[Tensor] = field(default_factory=list)

    def filled(self) -> set[int]:
        """Return the memory that is drawn anew as a whole."""
        whole = (t for t in self.changed if t.nbytes == t.untyped_storage().nbytes())
        return {_memory(t) for t in whole} if self.draws else set()


class RecordedDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records draws from the global random state, and all that is computed from them.

    Args:
        seed: Seed of the run; entering seeds the global state of torch.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed = seed
        self.own_seed = stream(seed, "initialisation").initial_seed()
        self.operations: list[_Operation] = []
        self._random: set[int] = set()

    @override
    def __enter__(self) -> "RecordedDraws":
        torch.default_generator.manual_seed(self.own_seed)  # no one else seeds it with this number
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        draws = self._draws(func, kwargs)
        inputs = list(_tensors((args, kwargs)))
        if not draws and not any(_memory(t) in self._random for t in inputs):
            return func(*args, **kwargs)
        changed = _changed(func, args, kwargs)
        operation = _Operation(func, args, kwargs, draws, changed)
        known = self._random | operation.filled()
        operation.before = [(t, t.clone()) for t in changed if _memory(t) not in known]
        out = func(*args, **kwargs)
        operation.results = list(_tensors(out))
        if not any(t.is_meta for t in operation.results):
            self.operations.append(operation)
            self._random |= {_memory(t) for t in [*changed, *operation.results]}
        return out

    def _draws(self, func: Any, kwargs: dict[str, Any]) -> bool:  # noqa: ANN401
        return (
            torch.Tag.nondeterministic_seeded in func.tags
            and kwargs.get("generator") is None
            and torch.default_generator.initial_seed() == self.own_seed
        )

    @torch.no_grad()
    def redraw(self, module: nn.Module) -> None:
        """Run all that has built a module again, each draw from the stream of its parameter."""
        names = self._names(module)
        own = {name: _memory(tensor) for name, tensor in _named(module)}
        counts: dict[str, int] = defaultdict(int)
        for number, operation in enumerate(self.operations):
            for tensor, value in operation.before:
                tensor.copy_(value)
            if operation.draws and number in names:
                name = names[number]
                # whatever was drawn before into the parameter itself is lost
                counts[name] = 0 if own[name] in operation.filled() else counts[name] + 1
                key = (self.seed, "initialisation", name, counts[name])
                torch.default_generator.manual_seed(stream(*key).initial_seed())
            elif operation.draws:
                continue  # it ended in no parameter
            _run_again(operation)

    def _names(self, module: nn.Module) -> dict[int, str]:
        """Return the parameter or buffer that each draw ends in, by number of the operation."""
        ends: dict[int, set[int]] = defaultdict(set)  # operations whose draws are in a memory
        for number, operation in enumerate(self.operations):
            inputs = {_memory(t) for t in _tensors((operation.args, operation.kwargs))}
            sources = {number} if operation.draws else set()
            sources |= set().union(*(ends[memory] for memory in inputs & ends.keys()))
            for tensor in [*operation.changed, *operation.results]:
                ends[_memory(tensor)] |= sources
        names: dict[int, str] = {}
        for name, tensor in _named(module):
            for number in ends.get(_memory(tensor), ()):
                names.setdefault(number, name)
        return names


def _named(module: nn.Module) -> list[tuple[str, Tensor]]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tensor) for name, tensor in named if not is_lazy(tensor)]  # no memory yet


def _run_again(operation: _Operation) -> None:
    inputs = {_memory(t) for t in _tensors((operation.args, operation.kwargs))}
    if not operation.changed and all(_memory(t) in inputs for t in operation.results):
        return  # a view, or a number
    results = list(_tensors(operation.function(*operation.args, **operation.kwargs)))
    for old, new in zip(operation.results, results, strict=True):
        if _memory(old) not in inputs:
            old.copy_(new)


def _changed(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:  # noqa: ANN401
    changed: list[Tensor] = []
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name, args[place] if place < len(args) else None)
            changed += _tensors(value)
    return changed


def _tensors(values: object) -> Iterator[Tensor]:
    """Yield the tensors among what an operation takes or returns, which nests lists alone."""
    # torch's own tree_leaves looks each leaf up in a registry: half of the time of building
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
