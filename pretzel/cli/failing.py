"""Options for what is done about cells that fail."""

import argparse


def add_failing_options(parser: argparse.ArgumentParser) -> None:
    """Add what says what a failing cell means for itself and for the others."""
    parser.add_argument(
        "--retry", type=_times, default=0, help="start a cell that fails again so often"
    )
    failing = parser.add_mutually_exclusive_group()
    failing.add_argument(
        "--keep-going", action="store_true", help="a cell that fails stops no other (default)"
    )
    failing.add_argument(
        "--fail-fast", action="store_true", help="the first cell that fails stops the others"
    )


def _times(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return int(text)
