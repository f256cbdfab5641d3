"""Checks of the arguments of data."""

from pretzel.errors import UserError


def check_at_least(minimum: int, **numbers: int | None) -> None:
    """Refuse numbers below a minimum; None is one that was not given.

    Raises:
        UserError: Naming the first such argument and its value.
    """
    for name, number in numbers.items():
        if number is not None and number < minimum:
            raise UserError(f"{name} must be at least {minimum}, not {number}")


def check_probabilities(**probabilities: float) -> None:
    """Refuse numbers that are no probabilities.

    Raises:
        UserError: Naming the first such argument and its value.
    """
    for name, value in probabilities.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} must be a probability in [0, 1], not {value}")
