"""Variants of one grid, planned or refused."""

import pytest
from lab_files import write

from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.errors import UserError


def planning(grid):
    """Return two functions of changes to a grid: its plan, and the report that refuses it."""

    def planned(**changed):
        return plan_grid(load(write("grid.yaml", {**grid, **changed})))

    def refused(**changed):
        with pytest.raises(UserError) as caught:
            planned(**changed)
        return str(caught.value)

    return planned, refused
