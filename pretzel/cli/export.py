"""The command ``pretzel export``."""

from pathlib import Path

from pretzel.cli.parser import Parser


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel export",
        description="Write a finished run of a grid as weights.safetensors, config.yaml, "
        "metrics.json, environment.json and its source.",
    )
    parser.add_argument("run", type=Path, help="the run's folder, such as runs/GRID/ARM/seed0")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    return parser


def export(args: list[str]) -> int:
    """Run ``pretzel export``: a finished run as weights, configuration, metrics, environment."""
    options = build_parser().parse_args(args)

    from pretzel.ablation.export import export as write_export

    write_export(options.run, options.out)
    out = options.out
    print(f"{out}: weights.safetensors, config.yaml, metrics.json, environment.json, source")
    print(f"Use it:  pretzel test -c {out}/config.yaml")
    return 0
