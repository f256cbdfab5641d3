"""Parts of the configuration of an imported run: latent space, class names, nodes from files."""

import argparse
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from pretzel.errors import UserError
from pretzel.interop.imported_flow import ImportedFlow, Node, node
from pretzel.latent.base import LatentSpace
from pretzel.latent.pixels import Pixels
from pretzel.runs.config.nested import map_leaves
from pretzel.runs.config.overlay import read
from pretzel.runs.config.typed_parser import TypedParser


class Latent(NamedTuple):
    """A latent space with its node in the configuration."""

    node: Node
    space: LatentSpace


def patch_of(channels: int, image_channels: int) -> int:
    """Return the side of a patch, given the channels of a position and of an image."""
    side = math.isqrt(channels // max(image_channels, 1))
    if image_channels < 1 or side < 1 or side**2 * image_channels != channels:
        raise UserError(
            f"--image_channels times the area of a square patch must be the {channels} channels "
            f"of a position, got {image_channels}"
        )
    return side


def pixels(flow: ImportedFlow, patch: int, noise: float, rows: int) -> Latent:
    """Return patches of pixels as the latent space of a model, so many rows along a side.

    ``noise`` is the standard deviation of its training noise.
    """
    if flow.channels != 3 * patch**2:
        raise UserError(
            f"--latent FILE.yaml is needed: a position has {flow.channels} channels, and patches "
            f"of {patch} x {patch} pixels have {3 * patch**2}"
        )
    arguments: dict[str, Any] = {"image_size": rows * patch, "patch_size": patch, "noise": noise}
    return Latent(node("latent.Pixels", **arguments), Pixels(**arguments))


def latent_from(path: Path, flow: ImportedFlow) -> Latent:
    """Return the latent space that a file describes, if it has the channels of the model."""
    latent = read_node(path, "latent")
    parser = TypedParser(exit_on_error=False)
    parser.add_argument("--latent", type=LatentSpace)
    try:
        space = parser.instantiate(parser.parse_object({"latent": latent})).latent
    except (argparse.ArgumentError, TypeError, KeyError, ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"--latent {path} must describe a latent space: {lines[-1] if lines else error!r}"
        ) from error
    if space.channels != flow.channels:
        raise UserError(
            f"--latent {path} must have the {flow.channels} channels of the checkpoint's "
            f"positions, got {space.channels}"
        )
    return Latent(latent, space)


def class_names(path: Path | None, num_classes: int) -> list[str] | None:
    """Return the names of a model's classes, one a line of a file; None for a model without.

    Without a file their numbers are their names.
    """
    if path is None:
        return [str(label) for label in range(num_classes)] or None
    if not path.is_file():
        raise UserError(f"--class_names: {path}: no such file")
    names = path.read_text(encoding="utf-8").splitlines()
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise UserError(
            f"--class_names: {path} must have {num_classes} different names, one a line, got "
            f"{len(names)}, of which {len(set(names))} differ"
        )
    return names


def read_node(path: Path, section: str) -> Node:
    """Return the node of a class from a file, perhaps under the name of its section.

    Paths in it that exist are made absolute: the imported configuration is in another folder.
    """
    content = read(path).values
    part = content.get(section, content)
    if not isinstance(part, dict) or not isinstance(part.get("class_path"), str):
        raise UserError(f"--{section} {path} must have class_path and init_args, got {part!r:.80}")
    absolute: Node = map_leaves(lambda _, value: _absolute(value), part)
    return absolute


def _absolute(value: object) -> object:
    if isinstance(value, str) and ("/" in value or Path(value).suffix) and os.path.exists(value):
        return os.path.abspath(value)
    return value
