"""Checkpoints made of golden files, and what `pretzel import` makes of them."""

from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentParser
from safetensors.torch import load_file, save_file

from pretzel.__main__ import main
from pretzel.latent.base import LatentSpace
from pretzel.latent.pixels import patchify
from pretzel.training.module import PretzelModule

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ["--head_dim", "16"]


class FourChannels(LatentSpace):
    """A latent space of the right size, for checkpoints that are not of pixels."""

    def __init__(self, grid: tuple[int, int] = (8, 8), channels: int = 4):
        super().__init__()
        self.grid, self.channels, self.noise, self.image_size = grid, channels, 0.3, grid[0]

    identity = "four"

    def encode(self, images):
        raise NotImplementedError

    def decode(self, latents):
        raise NotImplementedError


def golden(name):
    return GOLDEN / f"{name}.safetensors"


def tensors_of(name):
    loaded = load_file(golden(name))
    return {k.removeprefix("param."): v for k, v in loaded.items() if k.startswith("param.")}


def checkpoint(folder, name, suffix=".safetensors", **changes):
    """Write the parameters of a golden file as a checkpoint; None takes a key away."""
    tensors = {k: v for k, v in (tensors_of(name) | changes).items() if v is not None}
    path = folder / f"{name}{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        wrapped = {f"module.{key}": value for key, value in tensors.items()}
        torch.save({"model": wrapped, "epoch": 3}, path)
    return path


def four_channels(folder, **arguments):
    """Return the option that names :class:`FourChannels` as the latent space."""
    node = {"class_path": f"{__name__}.FourChannels", "init_args": arguments}
    (folder / "latent.yaml").write_text(yaml.safe_dump(node))
    return ["--latent", str(folder / "latent.yaml")]


def imported(path, family, *options, out="made"):
    folder = path.parent / out
    assert main(["import", family, str(path), "--out", str(folder), *options]) == 0
    return folder


def written(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


def module_of(folder):
    """Return the module of a written configuration; its trainer and data cost seconds to parse."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=PretzelModule)
    parsed = parser.parse_object({"model": written(folder)["model"]})
    return parser.instantiate(parsed).model.eval()


def refused(capsys, family, path, *options):
    """Return the one sentence with which an import is refused; it leaves nothing."""
    out = path.parent / "made"
    assert main(["import", family, str(path), "--out", str(out), *options]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    assert not out.exists()
    return message


def latents(case, key):
    """Return an image of a golden file as our patches."""
    return patchify(case.tensors[key], case.arguments["patch_size"])


def close(actual, expected):
    error = float((actual.detach() - expected).abs().max())
    assert error <= 1e-5 * float(expected.abs().max()), error
