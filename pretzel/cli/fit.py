"""``pretzel fit | validate | test | predict``."""

from pathlib import Path

from pretzel.ablation.sample_file import sample_results, write_samples
from pretzel.runs.cli import RunCLI


def main(args: list[str]) -> int:
    """Run a subcommand of LightningCLI; a test leaves the results of its items beside the logs."""
    cli = RunCLI(args)
    trainer = cli.trainer
    if args[0] == "test" and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # by a connector
        folder = trainer.log_dir  # asks all ranks
        if trainer.is_global_zero and folder is not None:
            write_samples(Path(folder), sample_results(trainer))
    return 0
