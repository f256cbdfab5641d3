"""The laws of contexts, for flow blocks that read one."""

import torch

from pretzel.flow.block import AutoregressiveBlock, FlowBlock
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.law_case import FP64, PERTURBED, PERTURBED_EVAL, Case, normal, tried_in
from pretzel.testing.laws.autoregressive import chunked, stepped
from pretzel.testing.laws.blocks import sample
from pretzel.typing import Float, Tensor

_EFFECT = 1e-8


def _outputs(block: FlowBlock, contexts: Tensor) -> Float[Tensor, "b n p"]:
    """Return what one row is mapped to under each context: parameters, or z."""
    x = sample(block, rows=1).expand(len(contexts), -1, -1)
    if isinstance(block, AutoregressiveBlock):
        params: Tensor = block.condition(x, contexts)
        return params
    z: Tensor = block(x, contexts).z
    return z


def _is_taken(block: FlowBlock, context: Tensor) -> bool:
    try:
        with torch.no_grad():
            _outputs(block, context)
    except (ValueError, IndexError):
        return False
    return True


@tried_in(PERTURBED, PERTURBED_EVAL)
def every_context_has_an_effect(case: Case[FlowBlock]) -> Deviation:
    """Two contexts, of which the null one may be one, give the same map or all but the same."""
    block = case.build()
    contexts = block.example_context(7)
    if contexts is None:
        return unmeasured("reads no context")
    null = torch.full_like(contexts[:1], -1)
    if not contexts.is_floating_point() and _is_taken(block, null):
        contexts = torch.cat([contexts, null])
    contexts = torch.unique(contexts, dim=0)
    require(len(contexts) > 1, "example_context gives equal contexts only")
    with torch.no_grad():
        outputs = _outputs(block, contexts)
    if isinstance(block, AutoregressiveBlock):
        outputs = outputs[:, 1:]  # the first position may have no parameters
    else:
        outputs = outputs.flatten(1)[:, None]
    names = [
        f"context {c.tolist()}" if c.dim() == 0 else f"text {i}" for i, c in enumerate(contexts)
    ]
    for i, first in enumerate(outputs):
        for j, second in enumerate(outputs[:i]):
            effect, place = (first - second).abs().amax(dim=-1).min(dim=0)
            what = f"{names[j]} or {names[i]} makes a difference of {float(effect):.2g} only"
            require(float(effect) > _EFFECT, f"{what}, {int(place) + 1} places behind the start")
    return unmeasured("every context has an effect")


@tried_in(PERTURBED, PERTURBED_EVAL)
def every_token_is_read(case: Case[FlowBlock]) -> Deviation:
    """A token of a text, shorter or longer than the image, has no effect, or another one cached."""
    block = case.build()
    short = block.example_context(3)
    if short is None or short.dim() != 3:
        return unmeasured("reads no text")
    long = torch.cat([short, short.flip(1)], dim=1)
    while long.shape[1] <= sample(block).shape[1]:
        long = torch.cat([long, -0.5 * long], dim=1)
    deviations = []
    for context in (short, long, long[:, :1]):
        tokens = context.clone().requires_grad_()
        outputs = _outputs(block, tokens)
        weights = normal(*outputs.shape, key="weights")
        (gradient,) = torch.autograd.grad((outputs * weights).sum(), tokens)
        unread = (gradient.abs().amax(dim=-1) < _EFFECT).nonzero()
        require(not len(unread), f"of {context.shape[1]} tokens, {unread.tolist()} are not read")
        if isinstance(block, AutoregressiveBlock):
            x, expected = sample(block, rows=1).expand(3, -1, -1), outputs.detach()
            for parts in (stepped, chunked):
                actual = parts(block, x, {"context": context})
                deviations.append(within(actual, expected, FP64, "parameters behind a text"))
    return worst_of(unmeasured("every token is read"), *deviations)
