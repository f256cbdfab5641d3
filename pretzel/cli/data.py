"""``pretzel data pack | inspect | verify | preview | index | embed | tokenizer``, without torch.

The tools are in ``datamodules.tools``.
"""

import argparse
from pathlib import Path

from pretzel.cli.parser import Parser

_EXAMPLE = """\
examples:
  pretzel data pack pictures/ --out shards/ --val-share 0.05 --license "CC BY 4.0"
  pretzel data pack captions.csv --images pictures/ --out shards/
  pretzel data pack questions.json annotations.json --images val2014/ --out shards/
  pretzel data inspect shards/ --out look/
  pretzel data verify shards/
  pretzel data preview -c base.yaml
  pretzel data embed -c base.yaml --device cuda
  pretzel data tokenizer -c base.yaml --out tokenizer.json
"""


def main(args: list[str]) -> int:
    """Run ``pretzel data``."""
    return build_parser().run(args, "datamodules.tools.commands")


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel data",
        description="Pack, look at and check data.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)

    def command(name: str, text: str, about: str) -> argparse.ArgumentParser:
        described = f"{text[0].upper()}{text[1:]}. {about}"
        return commands.add_parser(name, help=text, description=described)

    pack = command(
        "pack",
        "write tar shards of any data, with index, hashes and licence note",
        "Pictures stay as they are; each is decoded once, and what cannot be is left out and named "
        "in skipped.jsonl. The same command continues after Ctrl-C or a kill.",
    )
    _add_source(pack)
    pack.add_argument("--out", type=Path, required=True, help="folder for the shards")
    for split in ("val", "test"):
        pack.add_argument(
            f"--{split}-share",
            type=float,
            metavar="SHARE",
            help=f"share of the training samples to hold out as {split}, by a hash of the key",
        )
    pack.add_argument("--shard-size", type=int, default=1000, help="samples in a shard (1000)")
    pack.add_argument(
        "--license", default="", help="what the data may be used for: text, or a file with it"
    )
    inspect = command(
        "inspect",
        "count what there is, and show some of it",
        "Writes a contact sheet of each split and a page that needs no network into DIR.",
    )
    _add_source(inspect)
    inspect.add_argument(
        "--out", type=Path, default=Path("inspection"), metavar="DIR", help="(inspection)"
    )
    inspect.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="count smaller images as too small (that of -c)",
    )
    inspect.add_argument(
        "--limit", type=int, metavar="N", help="look at the first N samples of each split"
    )
    inspect.add_argument("--index", action="store_true", help="write the indexes of shards, too")
    verify = command(
        "verify",
        "find what is broken",
        "Files are compared with the SHA256SUMS that pack wrote; shards without one are read to "
        "their ends and decoded. Exit code 1 if anything is broken.",
    )
    _add_source(verify)
    preview = command(
        "preview",
        "show the batches that a configuration would train on",
        "Pictures, and text as the model's tokenizer reads it: what is predicted, what is dropped "
        "and what is only read in colours of their own. Nothing trains.",
    )
    preview.add_argument(
        "-c", "--config", action="append", required=True, metavar="YAML", help="as for pretzel fit"
    )
    preview.add_argument("--batches", type=int, default=1, metavar="N", help="how many (1)")
    preview.add_argument(
        "--split", choices=("train", "val", "test"), default="train", help="(train)"
    )
    preview.add_argument(
        "--out", type=Path, default=Path("preview"), metavar="DIR", help="for the sheets (preview)"
    )
    index = command(
        "index",
        "write where the samples of shards begin",
        "NAME.tar.index lies beside its shard, and lets a run that continues go to the next sample "
        "without reading those before it. pack writes them, too.",
    )
    _add_source(index)
    embed = command(
        "embed",
        "compute the latents of training pictures once, for all runs",
        "Runs whose latent space, shards, image size and crop are the same read them by "
        "themselves; states of captions are computed too where the model keeps text_states. The "
        "same command continues after Ctrl-C or a kill, and computes what is missing.",
    )
    embed.add_argument(
        "-c", "--config", action="append", required=True, metavar="YAML", help="as for pretzel fit"
    )
    embed.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="(float32)"
    )
    embed.add_argument("--device", default="cpu", help="of the encoder (cpu)")
    embed.add_argument("--workers", type=int, help="processes that decode (those of the data)")
    tokenizer = command(
        "tokenizer",
        "learn the word pieces of the tiny vision-language model",
        "From captions, questions, answers and documents of the training split; no picture is "
        "read. The stage that trains the model takes the file (model.init_args.tokenizer).",
    )
    _add_source(tokenizer)
    tokenizer.add_argument(
        "--out", type=Path, default=Path("tokenizer.json"), help="(tokenizer.json)"
    )
    tokenizer.add_argument("--size", type=int, default=512, metavar="N", help="word pieces (512)")
    tokenizer.add_argument(
        "--limit", type=int, metavar="N", help="read the first N training samples"
    )
    for one in (pack, inspect, verify, index):
        one.add_argument("--workers", type=int, help="processes (one a core)")
    return parser


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="folder of pictures or of shards, tar shards, table (CSV, JSONL, Parquet), "
        "LLaVA file, VQAv2's two files",
    )
    command.add_argument(
        "--images", metavar="DIR", help="folder that the paths in a table begin at (its own)"
    )
    command.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        metavar="YAML",
        help="configuration whose data are meant, or a source by class_path (repeatable)",
    )
