"""The ``pretzel`` command.

Only what a subcommand needs is imported: help and the state of a grid cost no torch.
"""

import importlib
import os
import sys
from collections.abc import Callable

import pretzel
from pretzel.errors import UserError, did_you_mean
from pretzel.runs.import_path import hidden_packages, put_working_directory_last

_HELP = """\
usage: pretzel COMMAND [options]

Train, sample and ablate unified text-image models.

a project to start from:
  init FOLDER         base configuration, grid, chain of stages, a block of your own with its laws

one run (every part in YAML by class_path; see `pretzel fit --help`):
  fit, validate, test, predict
                      pretzel fit -c base.yaml -c change.yaml --trainer.max_steps 100

an ablation (see `pretzel grid --help`):
  grid plan FILE      parse every run and show what each arm changes
  grid run FILE       train and test what is not done yet; the same command continues
  grid status FILE    what is done, running, failed; grid board FILE: TensorBoard
  compare DIR         the report: means, intervals, paired differences, curves, pictures
  diff A B            two runs or arms: configuration, code, versions, metrics
  reproduce DIR ROW   run a row of the table again and compare
  export RUN          weights, configuration, metrics, environment of a finished run

data:
  data pack PATH      tar shards of a folder, a table or questions; also inspect, verify, preview,
                      index (see `pretzel data --help`)

a model or a part:
  sample              pictures of prompts from a checkpoint (see `pretzel sample --help`)
  evaluate WHAT       figures of a trained model or of a folder of pictures
  import FAMILY FILE  weights of the public TarFlow or STARFlow (see `pretzel import --help`)
  check CLASS         the mathematical laws of a part, also your own (see `pretzel check --help`)
  metrics canary      metrics on real images, noise and shuffled captions: known answers

about this command:
  --version           the version of Pretzel
  --print-completion bash|zsh
                      completion of a shell: eval "$(pretzel --print-completion bash)"
"""


# A new command is one line here and one in the help above: where its function is.
_COMMANDS = {
    "init": "pretzel.cli.init:init",
    "fit": "pretzel.cli.fit:main",
    "validate": "pretzel.cli.fit:main",
    "test": "pretzel.cli.fit:main",
    "predict": "pretzel.cli.fit:main",
    "grid": "pretzel.cli.grid:grid",
    "compare": "pretzel.cli.compare:compare",
    "diff": "pretzel.cli.diff:diff",
    "reproduce": "pretzel.cli.reproduce:reproduce",
    "export": "pretzel.cli.export:export",
    "sample": "pretzel.cli.sample.command:main",
    "evaluate": "pretzel.cli.evaluate:main",
    "check": "pretzel.cli.check.command:main",
    "import": "pretzel.cli.importing.command:main",
    "data": "pretzel.cli.data:main",
    "metrics": "pretzel.cli.metrics:main",
}


def main(args: list[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The command and its options; ``sys.argv[1:]`` if None.

    Returns:
        The exit code: 0 done, 1 a run failed or a law is broken, 2 the user's mistake (told in
        one sentence on stderr), 130 interrupted.
    """
    try:
        code = _answer(sys.argv[1:] if args is None else args)
        sys.stdout.flush()  # a reader that is gone is noticed here, not when Python ends
    except BrokenPipeError:  # `pretzel compare DIR | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _answer(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_HELP)
        return 0
    if args[0] == "--version":
        print(f"pretzel {pretzel.__version__}")
        return 0
    put_working_directory_last()
    try:
        if args[0] == "--print-completion":
            from pretzel.cli.completion import completion

            print(completion(" ".join(args[1:])))
            return 0
        if args[0] not in _COMMANDS:
            near = did_you_mean(args[0], _COMMANDS) or f"; choose from {', '.join(_COMMANDS)}"
            raise UserError(f"unknown command '{args[0]}'{near}")
        for name in hidden_packages():
            print(
                f"pretzel: note: ./{name} is not imported, because pretzel has a package of this "
                "name; rename it to use what is in it",
                file=sys.stderr,
            )
        return _run(args)
    except UserError as error:
        print(f"pretzel: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"pretzel: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except SystemExit as stop:  # argparse: help, --print_config
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _run(args: list[str]) -> int:
    module, _, name = _COMMANDS[args[0]].partition(":")
    command: Callable[[list[str]], int] = getattr(importlib.import_module(module), name)
    return command(args if module == "pretzel.cli.fit" else args[1:])  # which has four commands


if __name__ == "__main__":
    sys.exit(main())
