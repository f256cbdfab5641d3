"""The block obeys the laws of autoregressive flow blocks."""

import pytest
from my_project import RunningMeanBlock

from pretzel.flow import AffineExp, AffineSoftplus, ColumnMajor, Flip
from pretzel.testing import run_laws


@pytest.mark.parametrize("grid", [(2, 3), (7,)])
def test_laws(grid):
    run_laws(lambda: RunningMeanBlock(2, grid, 2, Flip(), transform=AffineSoftplus(), width=8))


def test_laws_with_other_parts():
    run_laws(lambda: RunningMeanBlock(3, (3, 2), 1, ColumnMajor(), transform=AffineExp(), width=4))


def test_no_width_is_refused():
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        RunningMeanBlock(2, (3,), 1, Flip(), transform=AffineSoftplus(), width=0)
