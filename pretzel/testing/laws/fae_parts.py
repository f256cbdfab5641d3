"""The laws of what a feature autoencoder is made of: bottlenecks and decoders."""

from typing import Any

import torch
from torch import nn

from pretzel.latent.fae import Bottleneck, PixelDecoder
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.global_state import untouched
from pretzel.testing.gradients import check_gradients
from pretzel.testing.law_case import FP32, FP64, Case, holds_under_dropout, normal
from pretzel.typing import Float, Tensor

GRID, CHANNELS, FEATURES, IMAGE_SIZE = (4, 4), 6, 6, 16
"""Those of the laws; as many latent channels as features: a part may be the identity."""
IMAGES = 3


def inputs(part: nn.Module, count: int = IMAGES) -> Float[Tensor, "m n c"]:
    """Return standard normal features or latents, float64."""
    return normal(count, GRID[0] * GRID[1], FEATURES, key=type(part).__name__)


def exercise(part: nn.Module) -> None:
    """Run once."""
    part(inputs(part))


def outputs(part: nn.Module, x: Tensor) -> list[Tensor]:
    """Return what a part gives, as a list."""
    given: Any = part(x)
    return [given] if isinstance(given, Tensor) else [out for out in given if out is not None]


def shapes_are_those_of_the_grid(case: Case[nn.Module]) -> Deviation:
    """Latents are not [m, n, channels], features not [m, n, f], or images not square RGB."""
    part = case.build()
    for count in (IMAGES, 1):
        for out in outputs(part, inputs(part, count)):
            expected: tuple[int, ...] = (count, GRID[0] * GRID[1], FEATURES)
            if isinstance(part, Bottleneck):
                expected = (*expected[:2], part.channels)
            if isinstance(part, PixelDecoder):
                expected = (count, 3, IMAGE_SIZE, IMAGE_SIZE)
            require(tuple(out.shape) == expected, f"{tuple(out.shape)} instead of {expected}")
    return unmeasured("shapes")


def images_do_not_mix(case: Case[nn.Module]) -> Deviation:
    """Latents, features or pixels of an image depend on the others of the batch."""
    part = case.build()
    x = inputs(part)
    with torch.no_grad():
        together = outputs(part, x)
        alone = [torch.cat(rows) for rows in zip(*(outputs(part, r[None]) for r in x), strict=True)]
    pairs = zip(alone, together, strict=True)
    return worst_of(*(within(one, all_, FP64, "of single images") for one, all_ in pairs))


def calls_change_nothing(case: Case[nn.Module]) -> Deviation:
    """A call writes into its input, touches the random states, or keeps something."""
    part = case.build()
    x = inputs(part)
    argument = x.clone()
    with torch.no_grad(), untouched("a call"):
        first = outputs(part, argument)
    with torch.no_grad():
        part(3 * x + 1)
        other = case.build(seed=1)
        other.load_state_dict(part.state_dict())
        again, loaded = outputs(part, x), outputs(other, x)
    return worst_of(
        within(argument, x, 0.0, "input afterwards"),
        *(within(a, b, 0.0, "once more") for a, b in zip(again, first, strict=True)),
        *(within(a, b, 0.0, "from a state dict") for a, b in zip(loaded, first, strict=True)),
    )


@holds_under_dropout
def every_parameter_is_trained(case: Case[nn.Module]) -> Deviation:
    """A trainable parameter, or the input, gets no gradient or one that is not finite."""
    part = case.build()
    x = inputs(part).requires_grad_()
    out = torch.cat([o.flatten(1) for o in outputs(part, x)], dim=1)
    loss = (out * normal(*out.shape, key="weights")).sum()
    (gradient,) = torch.autograd.grad(loss, x, retain_graph=True, allow_unused=True)
    reaches = gradient is not None and bool(gradient.isfinite().all() and gradient.any())
    require(reaches, "the input gets no finite gradient")
    return check_gradients(part, loss, nonzero=case.perturbed)


def float32_is_close(case: Case[nn.Module]) -> Deviation:
    """In float32 the precision changes, or values are off by more than 1e-4."""
    part, exact = case.build(dtype=torch.float32), case.build()
    x = inputs(part)
    with torch.no_grad():
        rounded, expected = outputs(part, x.float()), outputs(exact, x)
    require(all(o.dtype == torch.float32 for o in rounded), "float32 gives another precision")
    pairs = zip(rounded, expected, strict=True)
    return worst_of(*(within(a.double(), b, FP32, "in float32") for a, b in pairs))
