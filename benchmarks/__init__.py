"""Side-by-side measurements; the package is not installed, run it from the repository."""
