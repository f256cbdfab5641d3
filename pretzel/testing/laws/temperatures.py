"""The laws of the attention temperature that a cache is made with."""

import inspect

import torch

from pretzel.testing.deviation import Deviation, check, require, unmeasured, within
from pretzel.testing.law_case import FP64, Case
from pretzel.testing.laws.autoregressive import AnyBlock, built, stepped
from pretzel.testing.laws.blocks import Bound, sample


def temperature_acts_on_its_own_rows(case: Case[AnyBlock]) -> Deviation:
    """A row's attention temperature is ignored, or acts on other rows, or 1 is not neutral."""
    block, x, context = built(case)
    if reason := _refusal(block):
        return unmeasured(reason)
    without = stepped(block, x, context)
    actual = stepped(block, x, context, temperature=x.new_tensor([1.0, 2.0, 1.0]))
    deviation = within(actual[::2], without[::2], FP64, "parameters of rows at temperature 1")
    if case.perturbed and x.shape[1] > 2:  # before the third position there may be a single key
        effect = float((actual[1] - without[1]).abs().max())
        require(effect > 1e-8, f"a row's temperature 2 changes its parameters by {effect:.2g} only")
    return deviation


def temperature_divides_the_logits(case: Case[AnyBlock]) -> Deviation:
    """The temperature does not divide the logits: it is inverted, or to another power.

    Attention is smooth in 1/T at uniform attention, T = infinity: the effect of the logits there
    is proportional to 1/T. Multiplied by T it is one-hot instead, and has no such effect.
    """
    block = case.build()
    if reason := _refusal(block):
        return unmeasured(reason)
    x = sample(block, rows=1).expand(3, -1, -1)
    if not case.perturbed or x.shape[1] < 3:  # there may be no effect at all
        return unmeasured("with perturbed parameters and three positions only")
    context = Bound(block, same=True).context(3)
    temperature = x.new_tensor([1e5, 1e6, 1e12])
    near, nearer, uniform = stepped(block, x, context, temperature=temperature)
    large, small = near - uniform, nearer - uniform
    size = float(small.abs().max())
    require(size > 1e-12, f"T = 1e6 differs from uniform attention, T = 1e12, by {size:.2g} only")
    error = float((large - 10 * small).abs().max() / large.abs().max())
    what = "effect of T = 1e5, ten times that of 1e6"
    return check(Deviation(what=what, error=error, tolerance=0.05))


def evaluations_keep_the_temperature(case: Case[AnyBlock]) -> Deviation:
    """Several positions at a time are evaluated at another temperature than one by one."""
    block, x, context = built(case)
    if reason := _refusal(block):
        return unmeasured(reason)
    temperature = x.new_tensor([1.0, 3.0, 0.5])
    with torch.no_grad():
        cache = block.new_cache(len(x), **context, temperature=temperature)
        actual = block.evaluate(x, 0, x.shape[1], cache)
    expected = stepped(block, x, context, temperature=temperature)
    return within(actual, expected, FP64, "parameters of all positions at their temperatures")


def _refusal(block: AnyBlock) -> str:
    """Return why a block has no temperature, or nothing where it has one."""
    parameters = inspect.signature(block.new_cache).parameters
    if "temperature" not in parameters:
        return "takes no temperature"
    context = Bound(block).context(3)
    try:
        block.new_cache(3, **context, temperature=torch.ones(3, dtype=torch.float64))
    except ValueError as error:
        require("temperature" in str(error), f"a temperature is refused without naming it: {error}")
        return "refuses a temperature"
    return ""
