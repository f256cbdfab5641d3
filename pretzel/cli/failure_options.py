"""Options of commands that start runs, for those that fail."""

import argparse


def add_failure_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--retry``, ``--keep-going`` and ``--fail-fast``."""
    parser.add_argument(
        "--retry", type=_times, default=0, help="start a run that fails again so often"
    )
    others = parser.add_mutually_exclusive_group()
    others.add_argument(
        "--keep-going", action="store_true", help="a run that fails stops no other (default)"
    )
    others.add_argument(
        "--fail-fast", action="store_true", help="the first run that fails stops the others"
    )


def _times(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return int(text)
