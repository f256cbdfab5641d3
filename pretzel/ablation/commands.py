"""placeholder while the grid is written."""
