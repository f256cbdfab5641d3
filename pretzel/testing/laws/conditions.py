"""The laws of conditions of a plain flow."""

import torch

from pretzel.tarflow.condition import Condition
from pretzel.testing.deviation import Deviation, require, unmeasured, within
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import FP32, Case
from pretzel.typing import Tensor

CPU = torch.device("cpu")


def texts_of(condition: Condition) -> list[str]:
    """Return texts that a condition takes: names of classes where it has ``labels``, or prose."""
    labels = getattr(condition, "labels", None)
    return list(labels)[:6] if labels else ["a red circle", "why?", "a very small blue triangle"]


def contexts(condition: Condition, texts: list[str | None]) -> Tensor | None:
    """Return the context of texts on the CPU."""
    context = condition(texts, CPU)
    return context if context is None else context.clone()


def there_is_a_context_for_each_text(case: Case[Condition]) -> Deviation:
    """A condition that reads text gives no context, or not one for each text; or it trains."""
    condition = case.build()
    texts = texts_of(condition)
    context = contexts(condition, [*texts, None])
    if not condition.reads_text:
        require(context is None, "a condition that reads no text gives a context")
        return unmeasured("reads no text")
    require(context is not None, "a condition that reads text gives no context")
    assert context is not None
    rows = len(texts) + 1
    require(len(context) == rows, f"{len(context)} contexts of {rows} texts")
    require(not context.requires_grad, "the context asks for a gradient")
    return unmeasured("contexts")


def texts_do_not_mix(case: Case[Condition]) -> Deviation:
    """The context of a text depends on the others of its batch, or on what was asked before."""
    condition = case.build()
    texts: list[str | None] = [*texts_of(condition), None]
    with untouched("making contexts"):
        together = contexts(condition, texts)
    if together is None:
        return unmeasured("reads no text")
    alone = [
        context for text in reversed(texts) if (context := contexts(condition, [text])) is not None
    ]
    expected, actual = together.double(), torch.cat(alone).flip(0).double()
    return within(actual, expected, FP32, "contexts of single texts")


def every_text_has_its_own_context(case: Case[Condition]) -> Deviation:
    """Two texts have one context, or a text has the null context of guidance."""
    condition = case.build()
    texts: list[str | None] = [*texts_of(condition), None]
    context = contexts(condition, texts)
    if context is None:
        return unmeasured("reads no text")
    for i, text in enumerate(texts):
        for j in range(i):
            equal = context[i].equal(context[j])
            require(not equal, f"{texts[j]!r} and {text!r} have the same context")
    return unmeasured("contexts differ")


def identity_is_that_of_the_content(case: Case[Condition]) -> Deviation:
    """Two conditions of one configuration have different identities, or an empty one."""
    first, second = case.build().identity, case.build(seed=1).identity
    require(bool(first) and first == second, f"identities of one configuration: {first}, {second}")
    return unmeasured("identity")
