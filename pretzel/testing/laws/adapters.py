"""The laws of adapters."""

import torch

from pretzel.interleave.adapter import Adapter
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.global_state import untouched
from pretzel.testing.gradients import check_gradients
from pretzel.testing.law_case import FP32, FP64, Case, holds_under_dropout, normal
from pretzel.testing.tiny_model import small_vlm
from pretzel.typing import Float, Tensor

FEATURES = 32
"""Those of the laws, and the hidden size: an adapter may be the identity."""
ROWS, LENGTH = 3, 5


def features() -> Float[Tensor, "b l s"]:
    """Return standard normal features, float64."""
    return normal(ROWS, LENGTH, FEATURES, key="features")


def exercise(adapter: Adapter) -> None:
    """Adapt once."""
    adapter(features())


def positions_do_not_mix(case: Case[Adapter]) -> Deviation:
    """The embedding of a position depends on other positions or rows, or on how they are laid out.

    Positions one by one give what all give at once, and so do those of all rows in one.
    """
    adapter, x = case.build(), features()
    with torch.no_grad():
        together = adapter(x)
        require(together.shape == x.shape, f"embeddings have shape {tuple(together.shape)}")
        alone = torch.stack([torch.stack([adapter(s) for s in row]) for row in x])
        flat = adapter(x.flatten(0, 1)).view_as(together)
    return worst_of(
        within(alone, together, FP64, "embeddings of single positions"),
        within(flat, together, FP64, "embeddings of all rows in one"),
    )


def it_starts_at_the_scale_of_text(case: Case[Adapter]) -> Deviation:
    """Started from a model, embeddings of standard normal features are not of the size of text's.

    An adapter without parameters has no scale of its own.
    """
    adapter, vlm = case.build(), small_vlm()
    if case.perturbed or not list(adapter.parameters()):
        return unmeasured("of parameters at initialisation only")
    with untouched("start_from"):
        adapter.start_from(vlm)
    with torch.no_grad():
        size = float(adapter(normal(500, FEATURES)).square().mean().sqrt())
    what = f"embeddings of size {size:.2g}, those of text are of size {vlm.text_scale():.2g}"
    require(1 / 3 < size / vlm.text_scale() < 3, what)
    return unmeasured("scale of text")


def calls_change_nothing(case: Case[Adapter]) -> Deviation:
    """A call writes into its input, touches the random states, or keeps something."""
    adapter, x = case.build(), features()
    argument = x.clone()
    with torch.no_grad(), untouched("adapting"):
        first = adapter(argument)
    with torch.no_grad():
        adapter(3 * x + 1)
        other = case.build(seed=1)
        other.load_state_dict(adapter.state_dict())
        again, loaded = adapter(x), other(x)
    return worst_of(
        within(argument, x, 0.0, "features afterwards"),
        within(again, first, 0.0, "embeddings once more"),
        within(loaded, first, 0.0, "embeddings with the same state dict"),
    )


@holds_under_dropout
def every_parameter_is_trained(case: Case[Adapter]) -> Deviation:
    """A trainable parameter, or the features, get no gradient or one that is not finite."""
    adapter, x = case.build(), features().requires_grad_()
    loss = (adapter(x) * normal(*x.shape, key="weights")).sum()
    (gradient,) = torch.autograd.grad(loss, x, retain_graph=True, allow_unused=True)
    reaches = gradient is not None and bool(gradient.isfinite().all() and gradient.any())
    require(reaches, "the features get no finite gradient: the flow cannot learn through the VLM")
    return check_gradients(adapter, loss, nonzero=case.perturbed)


def float32_is_close(case: Case[Adapter]) -> Deviation:
    """In float32 the embeddings change their precision, or are off by more than 1e-4."""
    x = features()
    with torch.no_grad():
        actual, expected = case.build(dtype=torch.float32)(x.float()), case.build()(x)
    require(actual.dtype == torch.float32, f"float32 gives {actual.dtype}")
    return within(actual.double(), expected, FP32, "embeddings in float32")
