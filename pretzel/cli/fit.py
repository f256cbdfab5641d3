"""``pretzel fit | validate | test | predict``."""

from pretzel.runs.cli import RunCLI


def main(args: list[str]) -> int:
    """Run a subcommand of LightningCLI.

    Args:
        args: The subcommand and its options.

    Returns:
        The exit code 0.

    Raises:
        UserError: For users' mistakes.
        KeyboardInterrupt: After a graceful stop.
    """
    RunCLI(args)
    return 0
