"""Checks of the sizes that parts are built with."""

from pretzel.errors import UserError


def check_sizes(**sizes: int) -> None:
    """Refuse sizes, given by the name of their argument, that are not positive."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} must be positive, got {size}")


def check_grid(grid: tuple[int, ...]) -> None:
    """Refuse the shape of a grid without axes, or without positions along one."""
    if not grid or min(grid) < 1:
        raise UserError(f"grid must have one axis or more, each with positions, got {grid}")
