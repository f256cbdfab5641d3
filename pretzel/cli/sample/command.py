"""``pretzel sample``: images of prompts, answers, conversations, from a trained model.

The help needs no torch: the model library is imported when it is needed.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pretzel.cli.parser import Parser
from pretzel.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import LightningModule

    from pretzel.training.loading import Check

_DESCRIPTION = """\
Generate images with the model of a fit configuration and trained weights: guidance and denoiser are
those of the configuration, and arguments may change them as for `pretzel fit`.

DIR receives 00000.png, 00001.png, ..., the first 256 on one sheet (grid.png), prompts.json, a
list of {file, prompt, seed, draw}, and sampling.json: sampler, its schedule, guidance, denoiser,
seed and network evaluations. The noise of an image depends on the seed, its prompt and which draw
of this prompt it is: neither on the other prompts nor on the batch size.

With --image the model answers questions about a picture, which is cropped and resized as in
training, or describes it.
With --turns it takes part in a conversation, a YAML list of steps in one sequence: {say: TEXT},
{image: FILE} (found relative to the YAML file), {generate: true} for an image, {answer: true}, and
{continue: true} for text in which the model may begin images itself. Text is printed as it comes;
DIR receives the pictures, transcript.json, transcript.txt, grid.png and sampling.json.
"""
_BATCH = 64
_MAX_TOKENS = 64
_EXAMPLE = """\
example:
  pretzel sample -c ablations/base/easy_vqa.yaml --ckpt_path final.ckpt \\
      --prompt "a red circle" --prompt "a teal triangle" --num 8 --model.guidance.weight 2.0
  pretzel sample -c ablations/base/easy_vqa.yaml --ckpt_path final.ckpt \\
      --image shape.png --question "what color is the shape?"
  pretzel sample -c ablations/base/easy_vqa.yaml --ckpt_path final.ckpt --turns story.yaml
"""


def main(args: list[str]) -> int:
    """Run ``pretzel sample``.

    Args:
        args: The options.

    Returns:
        The exit code 0.

    Raises:
        UserError: For users' mistakes, before anything is written.
        KeyboardInterrupt: With how far it came; the images generated so far are whole.
    """
    parser = build_parser()
    options, overrides = parser.parse_known_args(args)
    _check_overrides(overrides, parser)
    for name in ("num", "batch_size", "max_tokens"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}")
    _check_together(options)
    folder = _new_folder(options.out)
    prompts = _prompts(options.prompt, options.prompts)
    if options.turns is not None or options.image is not None:
        return _converse(options, overrides, folder)

    from pretzel.cli.sample.image_folder import COLUMNS, requested_images, write_images
    from pretzel.training.loading import KeyedGenerator

    def check(model: object) -> None:
        if not isinstance(model, KeyedGenerator):
            raise UserError(
                f"pretzel sample needs a module with generate(prompts, keys, seed) and reads_text, "
                f"but {type(model).__name__} is not one"
            )
        if not prompts and model.reads_text:
            raise UserError(
                f"--prompt or --prompts must be given: {type(model).__name__} reads prompts"
            )

    model = _trained(options, overrides, check)
    assert isinstance(model, KeyedGenerator)
    seed = model.seed if options.seed is None else options.seed
    num = options.num or 1
    images = requested_images(prompts or [""], num, seed)
    columns = num if 1 < num <= COLUMNS else COLUMNS
    write_images(model, images, folder, batch_size=options.batch_size or _BATCH, columns=columns)
    print(f"Images:   {folder / images[0].file} to {images[-1].file} ({len(images)}, seed {seed})")
    print(f"Sheet:    {folder / 'grid.png'}")
    print(f"Prompts:  {folder / 'prompts.json'}")
    if (folder / "sampling.json").exists():
        print(f"Sampling: {folder / 'sampling.json'}")
    return 0


def _converse(options: argparse.Namespace, overrides: list[str], folder: Path) -> int:
    """Answer questions about a picture, or hold a conversation."""
    from pretzel.cli.sample.script import check_script, question_scripts, read_script

    scripts = (
        [read_script(options.turns)]
        if options.turns
        else question_scripts(options.image, options.question or [])
    )

    from pretzel.cli.sample.conversation_folder import follow_scripts, write_conversations
    from pretzel.generation.conversation import Conversation
    from pretzel.generation.conversation_batch import conversations_with, require_pretzel
    from pretzel.generation.writing import Writing
    from pretzel.training.module import PretzelModule

    writing = Writing(
        temperature=0.0 if options.temperature is None else options.temperature,
        top_p=1.0 if options.top_p is None else options.top_p,
    )
    max_tokens = options.max_tokens or _MAX_TOKENS
    lengths: list[int] = []

    def check(module: object) -> None:
        if not isinstance(module, PretzelModule):
            name = type(module).__name__
            raise UserError(f"pretzel sample needs a PretzelModule here, got {name}")
        model = require_pretzel(module.pretzel)
        lengths.extend(check_script(model, script, max_tokens) for script in scripts)

    module = _trained(options, overrides, check)
    assert isinstance(module, PretzelModule)
    if any(step.kind in ("generate", "continue") for script in scripts for step in script):
        module.check_denoiser()
    begin = Conversation(
        conversations_with(
            module, [""], writing=writing, seed=options.seed, max_length=max(lengths)
        )
    )
    conversations = follow_scripts(
        begin, scripts, max_tokens=max_tokens, echo=lambda text: print(text, end="", flush=True)
    )
    write_conversations(conversations, folder)
    print(f"Written to {folder}: transcript.json, transcript.txt, sampling.json and pictures")
    return 0


def _trained(
    options: argparse.Namespace, overrides: list[str], check: "Check"
) -> "LightningModule":
    """Return the model of the configuration with its weights, on the device."""
    from pretzel.training.loading import trained_model

    device = _device(options.device)  # before anything is read
    return trained_model(
        options.config,
        overrides,
        checkpoint=options.ckpt_path,
        weights=options.weights,
        check=check,
    ).to(device)


def _check_together(options: argparse.Namespace) -> None:
    """Refuse options that mean nothing beside those that say what is asked for."""
    if options.question and options.image is None:
        raise UserError("--question must be asked about a picture: give --image FILE too")
    talks = options.turns is not None or options.image is not None
    for name in ("num", "batch_size") if talks else ("temperature", "top_p", "max_tokens"):
        if getattr(options, name) is not None:
            others = "--prompt or --prompts" if talks else "--image or --turns"
            raise UserError(f"--{name} must be given together with {others} only")


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel sample",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        usage="pretzel sample -c CONFIG [-c MORE] (--ckpt_path FILE | --weights FILE)\n"
        "       (--prompt TEXT [--prompt TEXT ...] | --prompts FILE |\n"
        "        --image FILE [--question TEXT ...] | --turns FILE) [options] [--KEY VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--config", action="append", required=True, metavar="CONFIG",
        help="a configuration of pretzel fit; several are laid over one another, the last on top",
    )  # fmt: skip
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--ckpt_path", type=Path, metavar="FILE",
        help="a checkpoint of pretzel fit or of a grid's cell; averaged weights where it has them",
    )  # fmt: skip
    start.add_argument(
        "--weights", type=Path, metavar="FILE", help="exported safetensors, or a checkpoint"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--prompt", action="append", metavar="TEXT", help="may be repeated")
    what.add_argument("--prompts", type=Path, metavar="FILE", help="a text file, one prompt a line")
    what.add_argument("--image", type=Path, metavar="FILE", help="a picture to ask about")
    what.add_argument("--turns", type=Path, metavar="FILE", help="a conversation, a YAML list")
    parser.add_argument(
        "--question", action="append", metavar="TEXT",
        help="about the picture; may be repeated; without one it is described",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, help="of text; 0 for the likeliest token, always (0)"
    )
    parser.add_argument(
        "--top_p", type=float, help="tokens are drawn from the likeliest with this probability (1)"
    )
    parser.add_argument("--max_tokens", type=int, help=f"of a text, at most ({_MAX_TOKENS})")
    parser.add_argument("--num", type=int, help="images of each prompt (1)")
    parser.add_argument("--seed", type=int, help="seed of the noise (that of the configuration)")
    parser.add_argument("--batch_size", type=int, help=f"images generated at a time ({_BATCH})")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="(%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="a new or empty folder (samples/run-N)"
    )
    return parser


def _check_overrides(overrides: list[str], parser: argparse.ArgumentParser) -> None:
    """Refuse misspelt options of this command; dotted keys are the configuration's."""
    groups = ("model", "data", "trainer", "seed_everything")
    names = [option for action in parser._actions for option in action.option_strings]
    for token in overrides:
        option, _, _ = token.partition("=")
        name = option.lstrip("-")
        if option.startswith("-") and not name.isdigit() and "." not in name and name not in groups:
            raise UserError(f"unknown argument '{option}'{did_you_mean(option, names)}")


def _new_folder(out: Path | None) -> Path:
    """Return a folder that holds nothing yet; it is made when the first image is there."""
    if out is None:
        number = 0
        while Path("samples", f"run-{number}").exists():
            number += 1
        out = Path("samples", f"run-{number}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out must be a new or empty folder, got {out}, which is not")
    existing = next(part for part in (out.absolute(), *out.absolute().parents) if part.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"--out: {out}: cannot be written, because {existing} cannot")
    return out


def _prompts(prompts: list[str] | None, file: Path | None) -> list[str]:
    if file is None:
        return prompts or []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--prompts: {file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--prompts: {file}: must be UTF-8 text ({error.reason})") from error
    read = [line.strip() for line in lines if line.strip()]
    if not read:
        raise UserError(f"--prompts: {file}: must hold at least one prompt, one a line")
    return read


def _device(name: str) -> "torch.device":
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine or this PyTorch has no CUDA; use cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
