"""``pretzel evaluate``: figures of a trained model or of a folder of pictures, outside training.

The help needs no torch: what measures is imported when it is needed.
"""

import argparse
import shutil
from pathlib import Path

from pretzel.cli.new_folder import new_folder
from pretzel.cli.overrides import overrides
from pretzel.cli.parser import Parser

_DESCRIPTION = """\
Measure a trained model, or pictures that somebody has generated, as training would have.

WHAT is a run of a grid or of pretzel fit, a checkpoint, an export, or a folder of pictures with
their prompts in prompts.json (as pretzel sample writes it) or in name.txt beside name.png, or in
the layout of GenEval (00000/metadata.jsonl, 00000/samples/0000.png).

The metrics are callbacks: those that FILE has under `callbacks:`, as a list of {class_path,
init_args}, or under `trainer.callbacks:`, as a configuration does; without it, those that the run
has been trained with.
What trains or stops is left out. The data are those of the run, or of -c; pictures of a folder are
compared with those of --real, both as they are. Of averaged weights these are the averages.

DIR receives evaluation.json (values, what they depend on, versions), config.yaml, and what the
callbacks write, such as sheets of samples.
"""
_EXAMPLE = """\
examples:
  pretzel evaluate runs/quickstart/stacked/seed0
  pretzel evaluate last.ckpt -c base.yaml --metrics metrics.yaml --model.guidance.weight 2
  pretzel evaluate pictures/ --real real_pictures/ --metrics metrics.yaml
"""


def main(args: list[str]) -> int:
    """Run ``pretzel evaluate``."""
    parser = build_parser()
    options, rest = parser.parse_known_args(args)
    changes = overrides(rest, parser, ("model", "data"))
    folder = new_folder(options.out, "evaluations")

    from pretzel.cli.evaluation import evaluate, write_evaluation

    try:
        evaluation = evaluate(
            options.what,
            metrics=options.metrics,
            config=options.config,
            overrides=changes,
            real=options.real,
            split=options.split,
            folder=folder,
        )
        write_evaluation(evaluation, folder / "evaluation.json")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # in which nothing was before
        raise
    width = max(map(len, evaluation.metrics), default=0)
    for name, value in sorted(evaluation.metrics.items()):
        print(f"{name:{width}}  {value:.6g}")
    if evaluation.ema is not None:
        print(f"Averaged weights (EMA): {evaluation.ema}")
    for name, why in evaluation.not_measured.items():
        print(f"n/a: {name}: {why}")
    print(f"Written to {folder}: evaluation.json")
    return 0


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel evaluate",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        usage="pretzel evaluate WHAT [--metrics FILE] [-c CONFIG [-c MORE]] [--real FOLDER]\n"
        "       [--split test|val] [--out DIR] [--KEY VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", type=Path, metavar="WHAT", help="run, checkpoint, export, pictures")
    parser.add_argument(
        "--metrics", type=Path, metavar="FILE", help="callbacks that measure (those of the run)"
    )
    parser.add_argument(
        "-c", "--config", action="append", default=[], metavar="CONFIG",
        help="laid over the configuration of the run: other data, another guidance; of a folder of "
        "pictures its data count alone",
    )  # fmt: skip
    parser.add_argument(
        "--real", type=Path, metavar="FOLDER", help="pictures to compare a folder of pictures with"
    )
    parser.add_argument(
        "--split", choices=("test", "val"), default="test", help="of the data (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="a new or empty folder (evaluations/run-N)"
    )
    return parser
