"""Arguments of ``pretzel import``. Needs no torch."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretzel.cli.parser import Parser

_DESCRIPTION = """\
Turn a checkpoint of the public TarFlow (apple/ml-tarflow) or STARFlow (apple/ml-starflow) into a
run of Pretzel: DIR receives config.yaml, a configuration of `pretzel fit`, and
weights.safetensors, which it starts from. Nothing in FILE is executed. Every key is accounted for
on stdout, and a key that is missing, unknown or of the wrong shape is refused.
"""
_EXAMPLE = """\
examples:
  pretzel import tarflow imagenet64.pth --out imported/imagenet64 --class_names classes.txt
  pretzel import starflow starflow_3B.pth --out imported/starflow --latent sd_vae.yaml
  pretzel sample -c imported/imagenet64/config.yaml --prompt goldfish --model.guidance.weight 2
"""

_Options = Mapping[str, Mapping[str, Any]]


def _number(help: str, default: int | None = None, metavar: str = "N") -> dict[str, Any]:
    return {"type": int, "default": default, "metavar": metavar, "help": help}


def _real(help: str, default: float | None = None, metavar: str = "W") -> dict[str, Any]:
    return {"type": float, "default": default, "metavar": metavar, "help": help}


def _file(help: str, metavar: str = "FILE.yaml") -> dict[str, Any]:
    return {"type": Path, "metavar": metavar, "help": help}


_OF_BOTH: _Options = {
    "file": _file("safetensors or torch file", "FILE"),
    "--out": _file("where to write", "DIR") | {"required": True},
    "--force": {"action": "store_true", "help": "replace what was imported there"},
    "--head_dim": _number("channels of a head, which no shape determines (%(default)s)", 64, "D"),
    "--noise": _real(
        "standard deviation of its training noise, for pixels in [-1, 1] (%(default)s)",
        0.05,
        "SIGMA",
    ),
    "--latent": _file(
        "class_path and init_args of its latent space (pixels, where it has three channels)"
    ),
    "--data": _file(
        "the data section of the configuration (the embedded easy-VQA, with its captions)"
    ),
}
_TARFLOW: _Options = {
    "--image_channels": _number(
        "channels of its images; the patch follows from it (%(default)s)", 3
    ),
    "--class_names": _file(
        'names of its classes, one a line, which prompts then are (numbered "0", "1", ...)', "FILE"
    ),
    "--guidance": _real("weight of the linear guidance of a model with classes (%(default)s)", 0.0),
}
_STARFLOW: _Options = {
    "--seq_order": {
        "choices": ["L2R", "R2L"],
        "default": "L2R",
        "help": "which blocks go backwards: the even ones (L2R) or the odd (%(default)s)",
    },
    "--patch_size": _number(
        "side of a patch; its channels are reordered from (row, column, channel) to ours, "
        "(channel, row, column) (%(default)s)",
        1,
        "P",
    ),
    "--soft_clip": _real("bound of the raw parameters, 0 for none (%(default)s)", 4.0, "B"),
    "--hf_style_rope": {"action": "store_true", "help": "it rotates channel pairs (m, m + d/2)"},
    "--pt_seq_len": _number("positions along a side in training (from the shape of var)"),
    "--img_size": _number("side of the images, for pixels (as in training)"),
    "--text_encoder": {
        "default": "google/flan-t5-xl",
        "metavar": "NAME",
        "help": "hub id or folder of the encoder of its texts (%(default)s)",
    },
    "--text_length": _number("tokens of a text (from the shape of the mask)"),
    "--guidance": _real("weight of the Gaussian mixing of a model with text (2.5)"),
}


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel import",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    families = parser.add_subparsers(dest="family", required=True, metavar="tarflow|starflow")

    def family(name: str, what: str, own: _Options) -> argparse.ArgumentParser:
        text = f"Import {what}."
        added = families.add_parser(name, help=what, description=text, allow_abbrev=False)
        for option, settings in {**_OF_BOTH, **own}.items():
            added.add_argument(option, **settings)
        return added

    family("tarflow", "a TarFlow (apple/ml-tarflow)", _TARFLOW)
    starflow = family("starflow", "an image model of STARFlow (apple/ml-starflow)", _STARFLOW)
    scale = starflow.add_mutually_exclusive_group()
    scale.add_argument(
        "--softplus", action="store_true", default=True, help="scales by softplus (the default)"
    )
    scale.add_argument("--exp", action="store_false", dest="softplus", help="scales by exp")
    return parser
