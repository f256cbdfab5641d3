"""What stands around imported blocks: the latent space, names of classes, nodes from files."""

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from pretzel.errors import UserError
from pretzel.interop.imported_flow import ImportedFlow, Node
from pretzel.latent.base import LatentSpace
from pretzel.latent.pixels import Pixels
from pretzel.runs.config.overlay import read


@dataclass(frozen=True, kw_only=True)
class Latent:
    """A latent space and what makes it.

    Attributes:
        node: As in YAML.
        space: The latent space.
    """

    node: Node
    space: LatentSpace


def part(path: str, /, **arguments: object) -> Node:
    """Return the node of one of our classes."""
    node: Node = {"class_path": f"pretzel.{path}"}
    return node | ({"init_args": arguments} if arguments else {})


def patch_of(channels: int, image_channels: int) -> int:
    """Return the side of the patches of a model of images.

    Raises:
        UserError: If no square patch has as many channels.
    """
    side = math.isqrt(channels // max(image_channels, 1))
    if image_channels < 1 or side < 1 or side**2 * image_channels != channels:
        raise UserError(
            f"--image_channels times the area of a square patch must be the {channels} channels "
            f"of a position, got {image_channels}"
        )
    return side


def pixels(flow: ImportedFlow, patch: int, noise: float, rows: int) -> Latent:
    """Return pixels as the latent space of a model of images.

    Args:
        flow: The model.
        patch: Side of its patches.
        noise: Standard deviation of its training noise.
        rows: Patches along a side.

    Raises:
        UserError: If its channels are not those of pixels.
    """
    if flow.channels != 3 * patch**2:
        raise UserError(
            f"--latent FILE.yaml is needed: a position has {flow.channels} channels, and patches "
            f"of {patch} x {patch} pixels have {3 * patch**2}"
        )
    arguments = {"image_size": rows * patch, "patch_size": patch, "noise": noise}
    node: Node = {"class_path": "pretzel.latent.Pixels", "init_args": arguments}
    return Latent(node=node, space=Pixels(image_size=rows * patch, patch_size=patch, noise=noise))


def latent_from(path: Path, flow: ImportedFlow) -> Latent:
    """Return the latent space that a file describes.

    Args:
        path: A YAML file with ``class_path`` and ``init_args``, perhaps under ``latent``.
        flow: The model.

    Raises:
        UserError: If it makes no latent space, or one of other channels.
    """
    node = read_node(path, "latent")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--latent", type=LatentSpace)
    try:
        space = parser.instantiate(parser.parse_object({"latent": node})).latent
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
    return Latent(node=node, space=space)


def class_names(path: Path | None, num_classes: int) -> list[str] | None:
    """Return the names of a model's classes; None for a model without.

    Args:
        path: A file with one name a line; None to number them.
        num_classes: Classes of the model; 0 for none.

    Raises:
        UserError: If there are not as many names as classes.
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
    """Return a class node from a file, perhaps under the name of its section.

    Paths in it that exist are made absolute: the configuration they go into lies elsewhere.

    Raises:
        UserError: If it cannot be read, or has no ``class_path``.
    """
    values = read(path).values
    node = values.get(section, values)
    if not isinstance(node, dict) or not isinstance(node.get("class_path"), str):
        raise UserError(f"--{section} {path} must have class_path and init_args, got {node!r:.80}")
    absolute: Node = _absolute(node)
    return absolute


def _absolute(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _absolute(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_absolute(inner) for inner in value]
    if isinstance(value, str) and ("/" in value or Path(value).suffix) and os.path.exists(value):
        return os.path.abspath(value)
    return value
