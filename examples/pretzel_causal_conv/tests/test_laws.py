"""The block obeys the laws of autoregressive flow blocks."""

import pytest
from pretzel.flow import AffineExp, AffineSoftplus, ColumnMajor, Flip
from pretzel.testing import run_laws

from pretzel_causal_conv import CausalConvBlock


@pytest.mark.parametrize("grid", [(3, 3), (7,)])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_laws(grid, kernel_size):
    run_laws(
        lambda: CausalConvBlock(
            2, grid, 2, Flip(), transform=AffineSoftplus(), width=8, kernel_size=kernel_size
        )
    )


def test_laws_with_other_parts():
    run_laws(lambda: CausalConvBlock(2, (2, 3), 1, ColumnMajor(), transform=AffineExp(), width=8))


def test_kernels_of_one_tap_are_refused():
    with pytest.raises(ValueError, match="kernel_size must be at least 2, got 1"):
        CausalConvBlock(2, (3,), 1, Flip(), transform=AffineSoftplus(), width=8, kernel_size=1)
