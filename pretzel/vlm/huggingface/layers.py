"""Changes to the decoder layers of a Hugging Face model for the length of one call."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from pretzel.typing import Float, Tensor
from pretzel.vlm.base import AfterLayer
from pretzel.vlm.replaced_forward import Forward, replaced_forwards, replacements


@contextmanager
def streams_joined(
    layers: Iterable[nn.Module], after_layer: AfterLayer | None, reference: Tensor
) -> Iterator[None]:
    """Let another stream, if any, join the residual stream after each layer.

    It works in the precision and on the device of the reference.
    """
    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            if after_layer is not None:
                hook = partial(_join, after_layer, number, reference)
                stack.enter_context(layer.register_forward_hook(hook))
        yield


def _join(
    after_layer: AfterLayer,
    number: int,
    reference: Tensor,
    layer: nn.Module,
    args: tuple[Any, ...],
    output: Float[Tensor, "b l h"],
) -> Float[Tensor, "b l h"]:
    return after_layer(number, output.to(reference)).to(output)


@contextmanager
def without_position_ids(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Keep the position ids from layers: the rotary embedding has been made of them by then."""
    with ExitStack() as stack:
        for layer in layers:
            hook = layer.register_forward_pre_hook(_drop_position_ids, with_kwargs=True)
            stack.enter_context(hook)
        yield


def _drop_position_ids(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "position_ids": None}


@contextmanager
def recomputed_backward(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let layers keep no activations: they run again in the backward pass.

    transformers' own switch asks for train mode, which a frozen model is never in. Hooks of a
    layer stand outside of what runs again.
    """
    with ExitStack() as stack:
        for layer in layers:
            again = partial(
                checkpoint,
                layer.forward,
                use_reentrant=False,
                context_fn=partial(_contexts, replacements(layer.modules())),
            )
            stack.enter_context(replaced_forwards({layer: again}))
        yield


def _contexts(
    forwards: Mapping[nn.Module, Forward],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts of the forward pass and of its repetition, when the call is long over."""
    return nullcontext(), replaced_forwards(forwards)
