"""The laws of vision inputs."""

import torch

from pretzel.interleave.vision_input import VisionInput
from pretzel.latent.pixels import Pixels
from pretzel.testing.deviation import Deviation, check, require, unmeasured, within, worst, worst_of
from pretzel.testing.global_state import untouched
from pretzel.testing.gradients import jacobian
from pretzel.testing.law_case import FP64, Case, normal
from pretzel.testing.tiny_model import small_vlm
from pretzel.typing import Float, Tensor
from pretzel.vlm.base import VLMStream

IMAGES = 3


def setting() -> tuple[Pixels, VLMStream, Float[Tensor, "m n d"], Float[Tensor, "m n d"]]:
    """Return a latent space, a model with a tower, u, and x of which each depends on all of u."""
    latent = Pixels(image_size=4, patch_size=2, noise=0.1)
    u = normal(IMAGES, latent.num_positions, latent.channels, key="u")
    return latent, small_vlm().double(), u, _latents(u)


def _latents(u: Float[Tensor, "m n d"]) -> Float[Tensor, "m n d"]:
    return (u + u.mean(dim=1, keepdim=True)).tanh()


def there_is_a_feature_for_each_position(case: Case[VisionInput]) -> Deviation:
    """The features are not [m, N, width] and finite, or those of no images fail."""
    part, (latent, vlm, u, x) = case.build(), setting()
    part.check(latent, vlm)
    width = part.width(latent.channels, vlm.hidden_size)
    for count in (IMAGES, 1, 0):
        features = part.features(u[:count], x[:count], latent, vlm)
        shape, expected = tuple(features.shape), (count, latent.num_positions, width)
        require(shape == expected, f"features have shape {shape} instead of {expected}")
        require(bool(features.isfinite().all()), "features are not finite")
    return unmeasured("shape of the features")


def images_do_not_mix(case: Case[VisionInput]) -> Deviation:
    """The features of an image depend on the other images of the batch."""
    part, (latent, vlm, u, x) = case.build(), setting()
    together = part.features(u, x, latent, vlm)
    alone = [part.features(u[i : i + 1], x[i : i + 1], latent, vlm) for i in range(IMAGES)]
    return within(torch.cat(alone), together, FP64, "features of single images")


def causal_features_are_known_in_time(case: Case[VisionInput]) -> Deviation:
    """It says that it is causal, and the features of a position depend on u of a later one."""
    part, (latent, vlm, u, _) = case.build(), setting()
    if not part.is_causal:
        return unmeasured("not causal")
    full = jacobian(lambda rows: part.features(rows, _latents(rows), latent, vlm), u[0])
    n = latent.num_positions
    later = torch.ones(n, n, dtype=torch.bool).triu(1)[:, None, :, None]
    return check(worst(full.abs() * later, FP64, "d features_n / d u_m for m > n"))


def images_are_seen(case: Case[VisionInput]) -> Deviation:
    """The features of a position are the same for two images that differ."""
    part, (latent, vlm, u, x) = case.build(), setting()
    changed = part.features(u + 1, (x + 1).tanh(), latent, vlm) - part.features(u, x, latent, vlm)
    seen = bool((changed.abs().amax(dim=2) > 0).all())
    require(seen, "features of a changed image are the same")
    return unmeasured("images are seen")


def calls_change_nothing(case: Case[VisionInput]) -> Deviation:
    """Features write into u or x, touch the random states, or are others the second time."""
    part, (latent, vlm, u, x) = case.build(), setting()
    arguments = u.clone(), x.clone()
    with untouched("making features"):
        first = part.features(*arguments, latent, vlm)
    part.features(x, u, latent, vlm)
    return worst_of(
        within(arguments[0], u, 0.0, "u afterwards"),
        within(arguments[1], x, 0.0, "x afterwards"),
        within(part.features(u, x, latent, vlm), first, 0.0, "features once more"),
    )
