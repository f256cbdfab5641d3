"""``pretzel import``: turns a published checkpoint into a configuration and its weights.

The help needs no torch; the modules that read and write are imported when they are needed.
"""

from pretzel.cli.importing.arguments import build_parser
from pretzel.errors import UserError


def main(args: list[str]) -> int:
    """Run ``pretzel import``."""
    options = build_parser().parse_args(args)
    if not options.force:
        for name in ("config.yaml", "weights.safetensors"):
            if (options.out / name).exists():
                raise UserError(f"--out: {options.out / name} exists; --force replaces it")

    from pretzel.cli.importing.conversion import convert
    from pretzel.cli.importing.output import write_import

    flow, parts, notes = convert(options)
    source = {"source": options.file.name, "family": options.family}
    write_import(flow, parts, options.out, metadata=source)
    print(flow.report)
    for note in notes:
        print(f"note: {note}")
    print(f"Configuration: {options.out / 'config.yaml'}")
    print(f"Weights:       {options.out / 'weights.safetensors'}")
    return 0
