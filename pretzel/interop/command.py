"""``pretzel import``: a published checkpoint becomes a configuration and its weights.

The help needs no torch; what reads and writes is imported when it is needed.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pretzel.errors import UserError

if TYPE_CHECKING:
    from pretzel.interop.blocks import ReadFlow
    from pretzel.interop.config import Surroundings

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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def main(args: list[str]) -> int:
    """Run ``pretzel import``.

    Args:
        args: The options.

    Returns:
        The exit code 0.

    Raises:
        UserError: For users' mistakes, before anything is written.
    """
    given = _parser().parse_args(args)
    if not given.force:
        for name in ("config.yaml", "weights.safetensors"):
            if (given.out / name).exists():
                raise UserError(f"--out: {given.out / name} exists; --force replaces it")

    from pretzel.interop.published import read_checkpoint
    from pretzel.interop.written import write_import

    tensors = {
        key: value.float() if value.is_floating_point() else value
        for key, value in read_checkpoint(given.file).items()
    }
    flow, around, notes = (_tarflow if given.family == "tarflow" else _starflow)(given, tensors)
    source = {"source": given.file.name, "family": given.family}
    write_import(flow, around, given.out, metadata=source)
    print(flow.report)
    for note in notes:
        print(f"note: {note}")
    print(f"Configuration: {given.out / 'config.yaml'}")
    print(f"Weights:       {given.out / 'weights.safetensors'}")
    return 0


def _tarflow(
    given: argparse.Namespace, tensors: dict[str, Any]
) -> tuple["ReadFlow", "Surroundings", list[str]]:
    from pretzel.interop.config import Surroundings
    from pretzel.interop.surroundings import (
        class_names,
        latent_from,
        part,
        patch_of,
        pixels,
        read_node,
    )
    from pretzel.interop.tarflow import read_tarflow

    flow = read_tarflow(tensors, head_dim=given.head_dim, source=str(given.file))
    if given.latent is None:
        patch = patch_of(flow.channels, given.image_channels)
        latent = pixels(flow, patch, given.noise, flow.grid[0])
    else:
        latent = latent_from(given.latent, flow)
        if latent.space.grid != flow.grid:
            raise UserError(
                f"--latent {given.latent} must have the grid {flow.grid} of the learned positions, "
                f"got {latent.space.grid}"
            )
    notes: list[str] = []
    condition, guidance = part("tarflow.NoCondition"), part("sampling.guidance.NoGuidance")
    names = class_names(given.class_names, flow.condition)
    if names is not None:
        condition = part("tarflow.ClassNames", names=names)
        guidance = part("sampling.guidance.LinearGuidance", weight=given.guidance)
        if given.data is None:
            notes.append(
                "the model is told classes by their names, and the embedded captions are none: "
                "give --data before fit or test"
            )
    elif given.guidance:
        raise UserError(f"--guidance needs a model with classes, got {given.guidance}")
    return (
        flow,
        Surroundings(
            latent=latent.node,
            image_size=latent.space.image_size,
            condition=condition,
            guidance=guidance,
            denoiser=_denoiser(latent.space.noise),
            prompts=None if names is None else names[:24],
            data=None if given.data is None else read_node(given.data, "data"),
        ),
        notes,
    )


def _starflow(
    given: argparse.Namespace, tensors: dict[str, Any]
) -> tuple["ReadFlow", "Surroundings", list[str]]:
    from pretzel.interop.config import Surroundings
    from pretzel.interop.starflow import StarflowOptions, read_starflow
    from pretzel.interop.surroundings import latent_from, part, pixels, read_node

    options = StarflowOptions(
        head_dim=given.head_dim,
        seq_order=given.seq_order,
        patch_size=given.patch_size,
        softplus=given.softplus,
        soft_clip=given.soft_clip,
        hf_style_rope=given.hf_style_rope,
        pt_seq_len=given.pt_seq_len,
        text_length=given.text_length,
    )
    flow = read_starflow(tensors, options, source=str(given.file))
    if given.latent is None:
        if given.img_size is not None and given.img_size % given.patch_size:
            raise UserError(f"--img_size must be a multiple of --patch_size, got {given.img_size}")
        rows = flow.grid[0] if given.img_size is None else given.img_size // given.patch_size
        latent = pixels(flow, given.patch_size, given.noise, rows)
    else:
        latent = latent_from(given.latent, flow)
        if len(latent.space.grid) != 2:
            raise UserError(
                f"--latent {given.latent} must have rows and columns, got {latent.space.grid}"
            )
    condition, guidance = part("tarflow.NoCondition"), part("sampling.guidance.NoGuidance")
    if flow.condition:
        condition = part(
            "tarflow.TextEncoder",
            name=given.text_encoder,
            channels=flow.condition,
            length=flow.text_length,
        )
        weight = 2.5 if given.guidance is None else given.guidance
        guidance = part("sampling.guidance.GaussianMixing", weight=weight)
    elif given.guidance:
        raise UserError(f"--guidance needs a model with text, got {given.guidance}")
    empty = sorted(set(range(flow.blocks[-1].number)) - {block.number for block in flow.blocks})
    notes = [f"block {number} has no keys: the identity, left out" for number in empty]
    return (
        flow,
        Surroundings(
            latent=latent.node,
            image_size=latent.space.image_size,
            condition=condition,
            guidance=guidance,
            denoiser=_denoiser(given.noise if given.latent is None else 0.0),
            data=None if given.data is None else read_node(given.data, "data"),
        ),
        notes,
    )


def _denoiser(noise: float) -> dict[str, Any]:
    """Return the published clean-up where there is noise that only the flow knows of."""
    name = "ScoreDenoiser" if noise else "NoDenoiser"
    return {"class_path": f"pretzel.sampling.denoise.{name}"}


def _parser() -> _Parser:
    parser = _Parser(
        prog="pretzel import",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    families = parser.add_subparsers(dest="family", required=True, metavar="tarflow|starflow")
    tarflow = _family(families, "tarflow", "a TarFlow (apple/ml-tarflow)")
    tarflow.add_argument(
        "--image_channels", type=int, default=3, metavar="N",
        help="channels of its images; the patch follows from it (%(default)s)",
    )  # fmt: skip
    tarflow.add_argument(
        "--class_names", type=Path, metavar="FILE",
        help='names of its classes, one a line, which prompts then are (numbered "0", "1", ...)',
    )  # fmt: skip
    tarflow.add_argument(
        "--guidance", type=float, default=0.0, metavar="W",
        help="weight of the linear guidance of a model with classes (%(default)s)",
    )  # fmt: skip

    starflow = _family(families, "starflow", "an image model of STARFlow (apple/ml-starflow)")
    starflow.add_argument(
        "--seq_order", choices=["L2R", "R2L"], default="L2R",
        help="which blocks go backwards: the even ones (L2R) or the odd (%(default)s)",
    )  # fmt: skip
    starflow.add_argument(
        "--patch_size", type=int, default=1, metavar="P",
        help="side of a patch; its channels are reordered from (row, column, channel) to ours, "
        "(channel, row, column) (%(default)s)",
    )  # fmt: skip
    starflow.add_argument(
        "--soft_clip", type=float, default=4.0, metavar="B",
        help="bound of the raw parameters, 0 for none (%(default)s)",
    )  # fmt: skip
    scale = starflow.add_mutually_exclusive_group()
    scale.add_argument(
        "--softplus", action="store_true", default=True, help="scales by softplus (the default)"
    )
    scale.add_argument("--exp", action="store_false", dest="softplus", help="scales by exp")
    starflow.add_argument(
        "--hf_style_rope", action="store_true", help="it rotates channel pairs (m, m + d/2)"
    )
    starflow.add_argument(
        "--pt_seq_len", type=int, metavar="N",
        help="positions along a side in training (told by the shape of var)",
    )  # fmt: skip
    starflow.add_argument(
        "--img_size", type=int, metavar="N", help="side of the images, for pixels (as in training)"
    )
    starflow.add_argument(
        "--text_encoder", default="google/flan-t5-xl", metavar="NAME",
        help="hub id or folder of what encoded its texts (%(default)s)",
    )  # fmt: skip
    starflow.add_argument(
        "--text_length", type=int, metavar="N",
        help="tokens of a text (told by the shape of the mask)",
    )  # fmt: skip
    starflow.add_argument(
        "--guidance", type=float, metavar="W",
        help="weight of the Gaussian mixing of a model with text (2.5)",
    )  # fmt: skip
    return parser


def _family(families: Any, name: str, what: str) -> argparse.ArgumentParser:  # noqa: ANN401
    family: argparse.ArgumentParser = families.add_parser(
        name, help=what, description=f"Import {what}.", allow_abbrev=False
    )
    family.add_argument("file", type=Path, metavar="FILE", help="safetensors or torch file")
    family.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    family.add_argument("--force", action="store_true", help="replace what was imported there")
    family.add_argument(
        "--head_dim", type=int, default=64, metavar="D",
        help="channels of a head, which no shape tells (%(default)s)",
    )  # fmt: skip
    family.add_argument(
        "--noise", type=float, default=0.05, metavar="SIGMA",
        help="standard deviation of its training noise, for pixels in [-1, 1] (%(default)s)",
    )  # fmt: skip
    family.add_argument(
        "--latent", type=Path, metavar="FILE.yaml",
        help="class_path and init_args of its latent space (pixels, where it has three channels)",
    )  # fmt: skip
    family.add_argument(
        "--data", type=Path, metavar="FILE.yaml",
        help="the data section of the configuration (the embedded easy-VQA, with its captions)",
    )  # fmt: skip
    return family
