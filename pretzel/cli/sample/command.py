"""``pretzel sample``: images of prompts, answers, conversations, from a trained model.

The help needs no torch: the model library is imported when it is needed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pretzel.cli.new_folder import new_folder
from pretzel.cli.overrides import overrides
from pretzel.cli.parser import Parser
from pretzel.errors import UserError

if TYPE_CHECKING:
    from pretzel.training.module import PretzelModule

_DESCRIPTION = """\
Generate images, answer questions and hold conversations with a trained model.

The model is built by the configuration that is kept with its weights, in a checkpoint or as
config.yaml beside exported weights, or by that of -c instead. Then --model.KEY VALUE changes it, as
for `pretzel fit`: guidance, sampler and denoiser are those of the configuration.

DIR receives 00000.png, 00001.png, ..., the first 256 on one sheet (grid.png), prompts.json, a
list of {file, prompt, seed, draw}, and sampling.json: sampler, its schedule, guidance, denoiser,
seed and network evaluations. The noise of an image depends on the seed, its prompt and which draw
of this prompt it is: neither on the other prompts nor on the batch size.

With --image the model answers questions about a picture, which is cropped and resized as in
training, or describes it; with --edit it draws the picture anew as an instruction says, like the
images of prompts.
With --turns it takes part in a conversation, a YAML list of steps in one sequence: {say: TEXT},
{image: FILE} (found relative to the YAML file), {generate: true} for an image, {answer: true}, and
{continue: true} for text in which the model may begin images itself. Text is printed as it comes;
DIR receives the pictures, transcript.json, transcript.txt, grid.png and sampling.json.
"""
_BATCH = 64
_MAX_TOKENS = 64
_EXAMPLE = """\
example:
  pretzel sample --ckpt_path final.ckpt \\
      --prompt "a red circle" --prompt "a teal triangle" --num 8 --model.guidance.weight 2.0
  pretzel sample --ckpt_path final.ckpt --image shape.png --question "what color is the shape?"
  pretzel sample --ckpt_path final.ckpt --image shape.png --edit "make it blue" --num 4
  pretzel sample --ckpt_path final.ckpt --turns story.yaml
"""


def main(args: list[str]) -> int:
    """Run ``pretzel sample``; mistakes are found before anything is written."""
    parser = build_parser()
    options, rest = parser.parse_known_args(args)
    options.overrides = overrides(rest, parser, ("model",))
    for name in ("num", "batch_size", "max_tokens"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}")
    for name in ("ckpt_path", "weights"):
        file = getattr(options, name)
        if file is not None and not file.is_file():
            raise UserError(f"--{name}: {file}: no such file")
    _check_together(options)

    from pretzel.flow.compiled_decoding import compiled_decoding

    folder = new_folder(options.out, "samples")
    with compiled_decoding(options.compile):
        return _sample(options, folder)


def _sample(options: argparse.Namespace, folder: Path) -> int:
    """Do what the options say."""
    prompts = options.edit or _prompts(options.prompt, options.prompts)
    if not options.edit and (options.turns is not None or options.image is not None):
        return _converse(options, folder)

    from pretzel.cli.sample.image_folder import COLUMNS, requested_images, write_images
    from pretzel.cli.sample.script import read_picture
    from pretzel.generation.documents import require_edits

    edited = read_picture(options.image, "--image") if options.edit else None

    def check(module: "PretzelModule") -> None:
        if edited is not None:
            require_edits(module.pretzel)
        elif not prompts and module.reads_text:
            raise UserError(
                f"--prompt or --prompts must be given: {type(module).__name__} reads prompts"
            )

    module = _trained(options, check)
    seed = module.seed if options.seed is None else options.seed
    num = options.num or 1
    images = requested_images(prompts or [""], num, seed, module.medium.suffix)
    columns = num if 1 < num <= COLUMNS else COLUMNS
    size = options.batch_size or _BATCH
    write_images(module, images, folder, batch_size=size, columns=columns, edited=edited)
    print(f"Images:   {folder / images[0].file} to {images[-1].file} ({len(images)}, seed {seed})")
    print(f"Sheet:    {folder / 'grid.png'}")
    print(f"Prompts:  {folder / 'prompts.json'}")
    print(f"Sampling: {folder / 'sampling.json'}")
    return 0


def _converse(options: argparse.Namespace, folder: Path) -> int:
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

    writing = Writing(
        temperature=0.0 if options.temperature is None else options.temperature,
        top_p=1.0 if options.top_p is None else options.top_p,
    )
    max_tokens = options.max_tokens or _MAX_TOKENS
    lengths: list[int] = []

    def check(module: "PretzelModule") -> None:
        model = require_pretzel(module.pretzel)
        lengths.extend(check_script(model, script, max_tokens) for script in scripts)

    module = _trained(options, check)
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
    options: argparse.Namespace, check: "Callable[[PretzelModule], None]"
) -> "PretzelModule":
    """Return the module that the options name, on the device."""
    import torch

    from pretzel.files.weights import read_checkpoint
    from pretzel.training.loading import trained_module

    device = options.device
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:  # said before anything is read
        raise UserError("--device cuda: this machine or this PyTorch has no CUDA; use cpu or auto")
    if device == "auto":
        device = "cuda" if has_gpu else "cpu"
    if options.ckpt_path is not None:
        read_checkpoint(options.ckpt_path)  # refuses exported weights, which trained_module takes
    weights = options.ckpt_path or options.weights
    module = trained_module(weights, options.config, overrides=options.overrides, check=check)
    return module.to(device)


def _check_together(options: argparse.Namespace) -> None:
    """Refuse options that mean nothing beside those that say what is asked for."""
    if options.question and options.image is None:
        raise UserError("--question must be asked about a picture: give --image FILE too")
    if options.edit and (options.image is None or options.question):
        raise UserError("--edit must be given together with --image FILE, and without --question")
    talks = not options.edit and (options.turns is not None or options.image is not None)
    for name in ("num", "batch_size") if talks else ("temperature", "top_p", "max_tokens"):
        if getattr(options, name) is not None:
            others = "--prompt, --prompts or --edit" if talks else "--image or --turns"
            raise UserError(f"--{name} must be given together with {others} only")


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel sample",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        usage="pretzel sample (--ckpt_path FILE | --weights FILE) [-c CONFIG [-c MORE]]\n"
        "       (--prompt TEXT [--prompt TEXT ...] | --prompts FILE |\n"
        "        --image FILE [--question TEXT ... | --edit TEXT ...] | --turns FILE)\n"
        "       [options] [--model.KEY VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--config", action="append", metavar="CONFIG",
        help="a configuration of pretzel fit, in the place of the one that is kept with the "
        "weights; several are laid over one another, the last on top. Its own `weights` count "
        "where no option names any",
    )  # fmt: skip
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--ckpt_path", type=Path, metavar="FILE",
        help="a checkpoint of pretzel fit or of a grid's run; averaged weights where it has them",
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
        "--edit", action="append", metavar="TEXT",
        help="an instruction by which the picture is drawn anew; may be repeated",
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
        "--compile", action="store_true",
        help="run the flow's layers compiled, on a CPU; the first time takes half a minute",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="a new or empty folder (samples/run-N)"
    )
    return parser


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
