"""``pretzel fit | validate | test | predict``."""

from pretzel.runs.cli import RunCLI


def main(args: list[str]) -> int:
    """Run a subcommand of LightningCLI."""
    RunCLI(args)
    return 0
