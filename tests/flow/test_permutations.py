import re

import pytest

from pretzel.flow import ColumnMajor, FixedRandom, Flip, FlipWithinFrame, Raster


def test_orders_of_a_small_grid():
    grid = (2, 3)  # 0 1 2 / 3 4 5
    assert Raster().order(grid).tolist() == [0, 1, 2, 3, 4, 5]
    assert Flip().order(grid).tolist() == [5, 4, 3, 2, 1, 0]
    assert ColumnMajor().order(grid).tolist() == [0, 3, 1, 4, 2, 5]
    assert ColumnMajor(flip=True).order(grid).tolist() == [5, 2, 4, 1, 3, 0]


def test_column_major_keeps_frames_in_order():
    assert ColumnMajor().order((2, 2, 2)).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_column_major_refuses_one_axis():
    with pytest.raises(ValueError, match="two axes or more, got grid=\\(6,\\)"):
        ColumnMajor().order((6,))


def test_flip_within_frame_keeps_time():
    assert FlipWithinFrame().order((2, 2, 2)).tolist() == [3, 2, 1, 0, 7, 6, 5, 4]
    order = FlipWithinFrame().order((3, 2, 4))
    assert (order // 8).tolist() == [0] * 8 + [1] * 8 + [2] * 8  # the frame of each step


@pytest.mark.parametrize("grid", [(6,), (2, 3)])
def test_flip_within_frame_refuses_grids_without_time(grid):
    with pytest.raises(ValueError, match=f"three axes or more .*got grid={re.escape(str(grid))}"):
        FlipWithinFrame().order(grid)


def test_random_orders_differ_by_seed():
    assert FixedRandom(0).order((4, 4)).tolist() != FixedRandom(1).order((4, 4)).tolist()
