"""A user's module whose own dependency is not installed."""

from no_such_package import Model  # noqa: F401
