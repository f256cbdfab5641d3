"""``pretzel metrics canary``: a parser without torch, of a command in ``callbacks``."""

import argparse

from pretzel.cli.parser import Parser

_EXAMPLE = """\
examples:
  pretzel metrics canary
  pretzel metrics canary -c base.yaml -c change.yaml --num-images 2000
"""


def main(args: list[str]) -> int:
    """Run ``pretzel metrics``."""
    return build_parser().run(args, "callbacks.canary_command")


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel metrics",
        description="Check metrics where the answer is known.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    canary = commands.add_parser(
        "canary",
        help="metrics on real images: halves against one another, noise, shuffled captions",
        description="Real images against other real ones must be as near as their number allows, "
        "noise far, shuffled captions worse, and answers without images as good as their "
        "frequency. Exit code 1 if anything is not so.",
    )
    canary.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        metavar="YAML",
        help="configuration whose data and metrics of callbacks.Generation are meant (easy-VQA, "
        "with the shipped judge)",
    )
    canary.add_argument(
        "--num-images", type=int, default=500, metavar="N", help="first of the test split (500)"
    )
    canary.add_argument(
        "--resamplings",
        type=int,
        default=199,
        metavar="N",
        help="random halves of the real images that a distance is compared with (199)",
    )
    canary.add_argument("--device", default="cpu", help="of the networks (cpu)")
    return parser
