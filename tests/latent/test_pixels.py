import math

import pytest
import torch

from pretzel.errors import UserError
from pretzel.latent import Pixels


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("noise", -0.1),
        ("noise", math.nan),
        ("noise", math.inf),
        ("image_size", 0),
        ("image_size", -4),
        ("patch_size", 0),
        ("patch_size", 3),
    ],
)
def test_impossible_pixels_are_refused(argument, value):
    given = {"image_size": 4, "patch_size": 2, "noise": 0.1, argument: value}
    with pytest.raises(UserError, match=rf"{argument} must .*got {value}"):
        Pixels(**given)


def test_a_batch_without_images_has_the_shape_of_its_latents():
    space = Pixels(image_size=8, patch_size=4, noise=0.0)
    latents = space.encode(torch.zeros(0, 3, 8, 8))
    assert latents.shape == (0, 4, 48)
    assert space.decode(latents).shape == (0, 3, 8, 8)
