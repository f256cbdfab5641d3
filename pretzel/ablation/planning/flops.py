"""FLOPs of a training step's forward on one sample, counted without memory.

On the meta device tensors have shapes and no data, but a model of sequences looks at data where it
finds its positions. So whole numbers and booleans stay on the CPU, with their data, and floating
point alone is without memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from pretzel.ablation.protocols import ExampleForward
from pretzel.errors import UserError
from pretzel.typing import Tensor


def forward_flops(module: nn.Module) -> int | None:
    """Return the FLOPs of a training step's forward of a module built under :func:`shapes_alone`.

    Multiplications and additions of matrix products, convolutions and attention count, each as
    one; attention counts in full where it is causal. None if the module is no
    :class:`ExampleForward`, or cannot run without memory.
    """
    if not isinstance(module, ExampleForward):
        return None
    without_memory = _WithoutMemory()
    try:
        with torch.no_grad(), without_memory:
            module.example_forward()
    except (RuntimeError, UserError):  # a part looks at data that is not there
        return None
    return without_memory.flops


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Make new floating-point tensors without memory, and those of whole numbers on the CPU."""
    with torch.device("meta"), _WholeNumbersOnCPU():
        yield


def _is_whole(dtype: torch.dtype) -> bool:
    return not dtype.is_floating_point and not dtype.is_complex


class _WholeNumbersOnCPU(TorchFunctionMode):
    """Give the factories of whole numbers and booleans the CPU for a device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        options = dict(kwargs or {})
        if func in _FILLERS:
            filled = args[0] if args else options.get("tensor")
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled  # on the meta device random numbers are slow
        elif func in _FACTORIES and options.get("device") is None:
            made = func(*args, **options)
            inputs = _tensors((*args, *options.values()))
            if not _is_whole(made.dtype) or any(tensor.is_meta for tensor in inputs):
                return made
            options["device"] = "cpu"
        return func(*args, **options)


_FACTORIES = {
    torch.arange, torch.empty, torch.eye, torch.full, torch.ones, torch.randint, torch.randperm,
    torch.tensor, torch.as_tensor, torch.tril_indices, torch.triu_indices, torch.zeros,
}  # fmt: skip
_FILLERS = {
    nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.normal_, nn.init.trunc_normal_,
    nn.init.uniform_, nn.init.xavier_normal_, nn.init.xavier_uniform_, Tensor.normal_,
    Tensor.uniform_,
}  # fmt: skip

# what an operation gave, and its FLOPs, by the operation and what it could see of its arguments
_RESULTS: dict[tuple[object, ...], tuple[Any, int]] = {}
_MAX_RESULTS = 20_000
_INDEX = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}


class _WithoutMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Let tensors without memory meet those on the CPU, whose data may decide about shapes.

    What an operation does to shapes is worked out in Python, slowly. The layers of a model, and of
    the models of other arms, do the same ones, so that each is worked out, and counted, once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self._counter = FlopCounterMode(display=False)

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        options = dict(kwargs) if kwargs else {}
        tensors = _tensors((*args, *options.values()) if options else args)
        num_meta = sum([tensor.is_meta for tensor in tensors])
        if not num_meta:
            is_for_meta = str(options.get("device")).startswith("meta")
            if tensors and _is_whole(tensors[0].dtype) and is_for_meta:
                options["device"] = torch.device("cpu")  # whole numbers keep their data
            return self._counted(func, args, options)[0]
        if options.get("device") is not None:
            options["device"] = torch.device("meta")  # what has no data cannot go elsewhere
        if num_meta < len(tensors):
            if func in _INDEX:
                places = [part for index in args[1] for part in _as_places(index)]
                args = (args[0], places, *args[2:])
            args, options = tree_map_only(Tensor, lambda t: t.to("meta"), (args, options))
        if _returns_its_input(func):
            return self._counted(func, args, options)[0]
        key = (func, _visible(args), *((name, _visible(value)) for name, value in options.items()))
        if key not in _RESULTS:
            if len(_RESULTS) >= _MAX_RESULTS:
                _RESULTS.clear()
            _RESULTS[key] = self._counted(func, args, options)
            return _RESULTS[key][0]
        made, flops = _RESULTS[key]
        self.flops += flops
        return made  # the same tensors: they have no data that could be changed

    def _counted(
        self, func: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Any, int]:
        """Return what an operation makes, and its FLOPs."""
        if not _may_count(func):
            return func(*args, **options), 0
        with self._counter:
            made = func(*args, **options)
        flops = int(self._counter.get_total_flops())
        self.flops += flops
        return made, flops


@cache
def _may_count(func: object) -> bool:
    """Tell whether an operation has FLOPs, or is made of operations that may have some."""
    if not isinstance(func, torch._ops.OpOverload):
        return True
    return func._overloadpacket in flop_registry or func._can_decompose()


@cache
def _returns_its_input(func: Any) -> bool:  # noqa: ANN401
    """Tell whether an operation returns its input or a view of it, which is quick as it is."""
    return any(returned.alias_info is not None for returned in func._schema.returns)


def _tensors(values: Iterable[object]) -> list[Tensor]:
    tensors = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += _tensors(value)
    return tensors


def _visible(value: object) -> object:
    """Return all that an operation without memory can see of an argument: of a tensor no data."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple([_visible(one) for one in value])
    return type(value), value  # 1 is not 1.0


def _as_places(index: Tensor | None) -> list[Tensor | None]:
    """Return a mask as the places where it is true: their number is a shape."""
    if index is None or index.dtype is not torch.bool:
        return [index]
    return list(index.nonzero().unbind(1))
