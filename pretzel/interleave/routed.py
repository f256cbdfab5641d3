"""Routed modules: one layer, two sets of weights, chosen position by position.

(Mixture-of-Transformers, arXiv 2411.04996, algorithm 1; BAGEL, arXiv 2505.14683.)

A routed module is a Linear or a norm of somebody else's layer whose ``forward`` is replaced for
the length of one call (:mod:`pretzel.vlm.replaced_forward`): what calls it, attention, masks and
caches, does not know.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.typing import Bool, Float, Tensor
from pretzel.vlm.replaced_forward import replaced_forwards

Map = Callable[[Tensor], Tensor]


def routable(root: nn.Module) -> list[nn.Module]:
    """Return the modules under a root that have weights; a UserError but for Linears and norms."""
    modules = []
    for name, module in root.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        is_norm = "norm" in type(module).__name__.lower() and all(p.dim() == 1 for p in own)
        if not (isinstance(module, nn.Linear) or is_norm):
            raise UserError(
                "vlm must have layers made of Linears and norms to route positions through weights "
                f"of their own, got {type(module).__name__} at {name or 'its root'!r}"
            )
        modules.append(module)
    return modules


def own_copy(module: nn.Module, *, random: bool) -> nn.Module:
    """Return a trainable copy of a frozen Linear or norm, in float32 at least.

    Random weights are normal of std 0.5 / sqrt(fan-in) and no bias, as the flow's own layers
    start; a norm's gain is 1.
    """
    weights = copy.deepcopy(module)
    for parameter in weights.parameters():
        # Small updates vanish in bfloat16 weights
        parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    weights.requires_grad_(True)
    if random:
        with torch.no_grad():
            for name, parameter in weights.named_parameters():
                if name == "bias":
                    parameter.zero_()
                elif parameter.dim() == 1:
                    parameter.fill_(1.0)
                else:
                    parameter.normal_(std=0.5 * parameter.shape[1] ** -0.5)
    return weights


class Route:
    """Splits the positions of a chunk between two maps: one for text, one for images."""

    def __init__(self, is_image: Bool[Tensor, "b l"]) -> None:
        flat = is_image.flatten()
        self.text, self.image = (~flat).nonzero()[:, 0], flat.nonzero()[:, 0]
        # Sorts text positions followed by image positions back into sequence order
        self.order = torch.cat([self.text, self.image]).argsort()

    def __call__(
        self, at_text: Map, at_image: Map, x: Float[Tensor, "b l *c"]
    ) -> Float[Tensor, "b l *e"]:
        """Run each position through its map."""
        if not len(self.image):
            return at_text(x)
        if not len(self.text):
            return at_image(x)
        # Gathered, so that each position costs one map
        rows = x.flatten(0, 1)
        text, image, order = (i.to(x.device) for i in (self.text, self.image, self.order))
        both = torch.cat([at_text(rows[text]), at_image(rows[image])])
        return both[order].view(*x.shape[:2], *both.shape[1:])


def routed(
    modules: Sequence[nn.Module],
    at_text: Sequence[nn.Module] | None,
    at_image: Sequence[nn.Module],
    is_image: Bool[Tensor, "b l"],
) -> AbstractContextManager[None]:
    """Replace the ``forward`` of modules, position by position, for the length of a call.

    ``at_text`` run in the place of each at text positions, where None stands for themselves, and
    ``at_image`` at image positions. ``is_image`` has the first two axes of all inputs.
    """
    route = Route(is_image)  # once: the same split serves every module of the call
    routes = {}
    for number, module in enumerate(modules):
        # Others may have replaced a forward as well, for example to keep weights elsewhere.
        text = module.forward if at_text is None else partial(_run, at_text[number])
        routes[module] = partial(route, text, partial(_run, at_image[number]))
    return replaced_forwards(routes)


def _run(module: nn.Module, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b e"]:
    """Return the output where and, but for autocast, in the type in which the input came."""
    weight = next(module.parameters())
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        autocast: Tensor = module(x.to(weight.device))
        return autocast.to(x.device)
    out: Tensor = module(x.to(weight))
    return out.to(x)
