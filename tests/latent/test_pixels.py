import math

import pytest

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
