"""The laws of skip connections."""

import torch

from pretzel.interleave.skips import SkipConnection
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.global_state import untouched
from pretzel.testing.gradients import check_gradients
from pretzel.testing.law_case import FP32, FP64, Case, holds_under_dropout, normal
from pretzel.typing import Float, Tensor

SOURCE, TARGET = 6, 5
ROWS, LENGTH = 3, 7


def states() -> tuple[Float[Tensor, "b l t"], Float[Tensor, "b l s"]]:
    """Return states of the stream that goes on and of the other one, float64."""
    target = normal(ROWS, LENGTH, TARGET, key="target")
    return target, normal(ROWS, LENGTH, SOURCE, key="source")


def exercise(skip: SkipConnection) -> None:
    """Add once."""
    skip(*states())


def it_starts_as_it_says(case: Case[SkipConnection]) -> Deviation:
    """Before training it adds something although it starts at zero, or nothing although not."""
    if case.perturbed:
        return unmeasured("at initialisation only")
    skip = case.build()
    with torch.no_grad():
        added = skip.contribution(states()[1])
    what = f"starts_at_zero is {skip.starts_at_zero}, and it adds {float(added.abs().max()):.2g}"
    require(bool(added.any()) != skip.starts_at_zero, what)
    return unmeasured("start")


def positions_do_not_mix(case: Case[SkipConnection]) -> Deviation:
    """The term added at a position depends on other positions, the past or the future, or rows."""
    skip, (target, source) = case.build(), states()
    with torch.no_grad():
        together = skip(target, source)
        rows = [t.flatten(0, 1)[:, None, None] for t in (target, source)]
        alone = torch.cat([skip(*position) for position in zip(*rows, strict=True)])
    alone = alone.view_as(together)
    return within(alone, together, FP64, "states of single positions")


def it_adds_its_contribution(case: Case[SkipConnection]) -> Deviation:
    """The result is not the target plus the contribution, or is changed where it must not be."""
    skip, (target, source) = case.build(), states()
    where = normal(ROWS, LENGTH, key="where") > 0
    with torch.no_grad():
        added = skip.contribution(source)
        require(added.shape == target.shape, f"contribution has shape {tuple(added.shape)}")
        everywhere = within(skip(target, source), target + added, FP64, "target + contribution")
        expected = torch.where(where[..., None], target + added, target)
        return worst_of(
            everywhere, within(skip(target, source, where), expected, FP64, "target elsewhere")
        )


def calls_change_nothing(case: Case[SkipConnection]) -> Deviation:
    """A call writes into its arguments, touches the random states, or keeps something."""
    skip, arguments = case.build(), states()
    with torch.no_grad(), untouched("adding"):
        first = skip(*arguments)
    with torch.no_grad():
        skip(arguments[0] + 1, 3 * arguments[1])
        other = case.build(seed=1)
        other.load_state_dict(skip.state_dict())
        again, loaded = skip(*arguments), other(*arguments)
    unchanged = [within(a, b, 0.0, "arguments") for a, b in zip(arguments, states(), strict=True)]
    return worst_of(
        *unchanged,
        within(again, first, 0.0, "sum once more"),
        within(loaded, first, 0.0, "sum with the same state dict"),
    )


@holds_under_dropout
def every_parameter_is_trained(case: Case[SkipConnection]) -> Deviation:
    """A parameter gets no finite gradient; or none gets one, so that the skip stays zero."""
    skip, (target, source) = case.build(), states()
    loss = (skip(target, source) * normal(*target.shape, key="weights")).sum()
    deviation = check_gradients(skip, loss, nonzero=case.perturbed)
    own = [p for p in skip.parameters() if p.requires_grad]
    gradients = torch.autograd.grad((skip(target, source) ** 2).sum(), own, allow_unused=True)
    moves = any(gradient is not None and bool(gradient.any()) for gradient in gradients)
    require(moves or not own, "no parameter gets a gradient: it stays as it starts")
    return deviation


def float32_is_close(case: Case[SkipConnection]) -> Deviation:
    """In float32 the sum changes its precision, or is off by more than 1e-4."""
    target, source = states()
    with torch.no_grad():
        actual = case.build(dtype=torch.float32)(target.float(), source.float())
        expected = case.build()(target, source)
    require(actual.dtype == torch.float32, f"float32 gives {actual.dtype}")
    return within(actual.double(), expected, FP32, "sum in float32")
