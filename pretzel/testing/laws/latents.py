"""The laws of latent spaces."""

import math

import torch

from pretzel.latent.base import LatentSpace
from pretzel.latent.patches import channel_axis
from pretzel.media import Pictures, Videos
from pretzel.sequence.grid import grid_coordinates
from pretzel.testing.deviation import Deviation, LawBroken, require, unmeasured, within, worst_of
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import FP32, FP64, Case, normal
from pretzel.typing import Float, Tensor

IMAGES = 6


def pictures(size: int, count: int = IMAGES) -> Float[Tensor, "m 3 size size"]:
    """Return images in [-1, 1], a square of a colour of its own at a place of its own in each."""
    images = torch.full((count, 3, size, size), 0.9, dtype=torch.float64)
    side = -(-size // 2)
    for number, image in enumerate(images):
        row, column = (number // 2 % 2) * (size - side), (number % 2) * (size - side)
        colour = (normal(3, key=f"colour {number}") * 2).tanh()
        image[:, row : row + side, column : column + side] = colour[:, None, None]
    return images


def examples(latent: LatentSpace, count: int = IMAGES) -> Float[Tensor, "m ..."]:
    """Return different items of the medium of a latent space: pictures, those moving, or tones."""
    medium = latent.medium
    if isinstance(medium, Pictures):
        return pictures(medium.size, count)
    if isinstance(medium, Videos):
        still = pictures(medium.size, count)
        return torch.stack([still.roll(t, dims=-1) for t in range(medium.num_frames)], dim=1)
    time = torch.arange(medium.shape[-1]).double()
    periods = 40 / torch.arange(1, 1 + count).double()  # in samples
    tones = (2 * math.pi * time / periods[:, None]).cos() * 0.8
    return tones.reshape(count, *[1] * (len(medium.shape) - 1), -1).expand(count, *medium.shape)


def sizes_are_what_they_say(case: Case[LatentSpace]) -> Deviation:
    """Latents are not [m, N, D] by grid and channels, or items not of the shape of the medium."""
    latent = case.build()
    n = math.prod(latent.grid)
    require(latent.num_positions == n, f"num_positions must be {n}, got {latent.num_positions}")
    require(0 <= latent.noise < math.inf, f"noise must be 0 or positive, got {latent.noise}")
    for count in (IMAGES, 1, 0):
        with torch.no_grad():
            x = latent.encode(examples(latent)[:count])
            shape, expected = tuple(x.shape), (count, n, latent.channels)
            require(shape == expected, f"encode gives {shape} instead of {expected}")
            shape, wanted = tuple(latent.decode(x).shape), (count, *latent.medium.shape)
            require(shape == wanted, f"decode gives {shape} instead of {wanted}")
    return unmeasured("shapes")


def nothing_trains(case: Case[LatentSpace]) -> Deviation:
    """The latent space has a parameter that asks for a gradient: it is not frozen."""
    asking = [name for name, p in case.build().named_parameters() if p.requires_grad]
    require(not asking, f"these parameters ask for gradients: {', '.join(asking[:3])}")
    return unmeasured("frozen")


def images_do_not_mix(case: Case[LatentSpace]) -> Deviation:
    """The latents of an image, or the image of latents, depend on the others of the batch."""
    latent = case.build()
    images = examples(latent)
    with torch.no_grad():
        x = latent.encode(images)
        alone = torch.cat([latent.encode(image[None]) for image in images])
        decoded, one = latent.decode(x), torch.cat([latent.decode(row[None]) for row in x])
    return worst_of(
        within(alone, x, FP64, "latents of single images"),
        within(one, decoded, FP64, "images of single latents"),
    )


def calls_change_nothing(case: Case[LatentSpace]) -> Deviation:
    """Encoding or decoding draws random numbers, writes into its input or gives other results."""
    latent = case.build()
    images = examples(latent)
    argument = images.clone()
    with torch.no_grad(), untouched("encoding and decoding"):
        x = latent.encode(argument)
        kept = x.clone()
        decoded = latent.decode(x)
    with torch.no_grad():
        latent.decode(latent.encode(examples(latent, 2).flip(0)))
        again = latent.encode(images)
    return worst_of(
        within(argument, images, 0.0, "images afterwards"),
        within(x, kept, 0.0, "latents afterwards"),
        within(again, kept, 0.0, "latents once more"),
        within(latent.decode(again).detach(), decoded, 0.0, "images once more"),
    )


def images_come_back(case: Case[LatentSpace]) -> Deviation:
    """A decoded image is nearer to another image than to the one that was encoded."""
    latent = case.build()
    images = examples(latent)
    with torch.no_grad():
        decoded = latent.decode(latent.encode(images))
    distances = torch.cdist(decoded.flatten(1), images.flatten(1))
    nearest = distances.argmin(dim=1).tolist()
    require(nearest == list(range(IMAGES)), f"images come back as those numbered {nearest}")
    return unmeasured("images come back")


def positions_are_in_raster_order(case: Case[LatentSpace]) -> Deviation:
    """Latent positions do not lie in an item in raster order: rows and columns are confused."""
    latent = case.build()
    channels = channel_axis(latent.medium)
    sides = [side for axis, side in enumerate(latent.medium.shape) if axis != channels]
    if len(latent.grid) != len(sides) or min(latent.grid) < 2:
        return unmeasured("of grids with the axes of the medium only")
    n = latent.num_positions
    with torch.no_grad():
        x = latent.encode(examples(latent, 1))
        changed = x + torch.eye(n).double()[..., None]  # one position of each image
        weight = (latent.decode(changed) - latent.decode(x)).square().sum(dim=1 + channels)
    weight = weight / weight.flatten(1).sum(1).reshape(-1, *[1] * len(sides))
    coordinates = torch.cartesian_prod(*(torch.arange(side) for side in sides)).double()
    place = (weight.flatten(1) @ coordinates.reshape(-1, len(sides))).T
    raster = grid_coordinates(latent.grid).T.double()
    correlation = torch.corrcoef(torch.cat([place, raster]))[: len(sides), len(sides) :]
    straight = correlation.diagonal().sum()
    crossed = correlation.sum() - straight
    what = (
        f"places in the item follow the axes of the grid by {straight:.2f}, crossed {crossed:.2f}"
    )
    require(bool(straight > crossed.abs() + 0.5), what)
    return unmeasured("raster order")


def other_sizes_are_refused(case: Case[LatentSpace]) -> Deviation:
    """Images of another size are not refused by a ValueError."""
    latent = case.build()
    images = examples(latent)
    for wrong in (images[..., :-1], torch.cat([images, images], dim=2)):
        try:
            latent.encode(wrong)
        except (ValueError, TypeError):  # a checker of shapes, where one runs, raises the latter
            continue
        raise LawBroken(f"images of shape {tuple(wrong.shape)} are not refused")
    return unmeasured("other sizes refused")


def identity_is_that_of_the_content(case: Case[LatentSpace]) -> Deviation:
    """Two latent spaces of one configuration have different identities, or an empty one."""
    first, second = case.build().identity, case.build(seed=1).identity
    require(bool(first) and first == second, f"identities of one configuration: {first}, {second}")
    return unmeasured("identity")


def float32_is_close(case: Case[LatentSpace]) -> Deviation:
    """In float32 latents or images change their precision, or are off by more than 1e-4."""
    latent, exact = case.build(dtype=torch.float32), case.build()
    images = examples(latent)
    with torch.no_grad():
        x, expected = latent.encode(images.float()), exact.encode(images)
        decoded = latent.decode(x)
        require(x.dtype == decoded.dtype == torch.float32, f"float32 gives {x.dtype}")
        return worst_of(
            within(x.double(), expected, FP32, "latents in float32"),
            within(decoded.double(), exact.decode(expected), FP32, "images in float32"),
        )
