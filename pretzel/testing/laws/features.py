"""The laws of frozen feature encoders."""

import torch

from pretzel.latent.features.base import FeatureEncoder
from pretzel.testing.deviation import Deviation, LawBroken, require, unmeasured, within, worst_of
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import FP32, FP64, Case
from pretzel.testing.laws.latents import pictures


def sizes_are_what_they_say(case: Case[FeatureEncoder]) -> Deviation:
    """Features are not [m, rows * columns, sum of the stages], or change the precision."""
    encoder = case.build()
    rows, columns = encoder.grid
    for count in (3, 1, 0):
        expected = (count, rows * columns, sum(encoder.stages))
        features = encoder(pictures(encoder.image_size)[:count])
        require(tuple(features.shape) == expected, f"{tuple(features.shape)} instead of {expected}")
        require(features.dtype == torch.float64, f"float64 gives {features.dtype}")
    return unmeasured("shapes")


def nothing_trains(case: Case[FeatureEncoder]) -> Deviation:
    """A feature has a gradient, or the encoder has weights that an optimizer would be given."""
    encoder = case.build()
    features = encoder(pictures(encoder.image_size).requires_grad_())
    require(not features.requires_grad, "features ask for gradients")
    asking = [name for name, p in encoder.named_parameters() if p.requires_grad]
    require(not asking, f"these parameters ask for gradients: {', '.join(asking[:3])}")
    return unmeasured("frozen")


def images_do_not_mix(case: Case[FeatureEncoder]) -> Deviation:
    """The features of an image depend on the others of the batch."""
    encoder = case.build()
    images = pictures(encoder.image_size)
    alone = torch.cat([encoder(image[None]) for image in images])
    return within(alone, encoder(images), FP64, "features of single images")


def calls_change_nothing(case: Case[FeatureEncoder]) -> Deviation:
    """A call draws random numbers, writes into its input, or gives other features in training."""
    encoder = case.build()
    images = pictures(encoder.image_size)
    argument = images.clone()
    with untouched("encoding"):
        first = encoder(argument)
    encoder(images.flip(0))
    return worst_of(
        within(argument, images, 0.0, "images afterwards"),
        within(encoder.train()(images), first, 0.0, "features in training mode"),
    )


def features_differ_by_image(case: Case[FeatureEncoder]) -> Deviation:
    """Two different images have the same features."""
    encoder = case.build()
    features = encoder(pictures(encoder.image_size)).flatten(1)
    apart = torch.cdist(features, features) + torch.eye(len(features)).double()
    require(bool(apart.min() > 0), "two images have the same features")
    return unmeasured("features differ")


def other_sizes_are_refused(case: Case[FeatureEncoder]) -> Deviation:
    """Images of another size are not refused by a ValueError."""
    encoder = case.build()
    wrong = pictures(encoder.image_size)[..., :-1]
    try:
        encoder(wrong)
    except (ValueError, TypeError):  # a checker of shapes, where one runs, raises the latter
        return unmeasured("other sizes refused")
    raise LawBroken(f"images of shape {tuple(wrong.shape)} are not refused")


def identity_is_that_of_the_content(case: Case[FeatureEncoder]) -> Deviation:
    """Two encoders of one configuration have different identities, or an empty one."""
    first, second = case.build().identity, case.build(seed=1).identity
    require(bool(first) and first == second, f"identities of one configuration: {first}, {second}")
    return unmeasured("identity")


def float32_is_close(case: Case[FeatureEncoder]) -> Deviation:
    """In float32 features are off by more than 1e-4 of their size."""
    encoder = case.build()
    images = pictures(encoder.image_size)
    exact, rounded = encoder(images), encoder(images.float())
    scale = exact.abs().amax().clamp(min=1)
    return within(rounded.double() / scale, exact / scale, FP32, "features in float32")
