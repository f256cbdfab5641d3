"""Converts a published checkpoint to an imported flow and the other parts of its run."""

import argparse
from dataclasses import fields, replace

from pretzel.cli.importing.config_nodes import (
    Latent,
    class_names,
    latent_from,
    patch_of,
    pixels,
    read_node,
)
from pretzel.cli.importing.run_config import RunParts
from pretzel.errors import UserError
from pretzel.interop.checkpoint import read_checkpoint
from pretzel.interop.imported_flow import ImportedFlow, node
from pretzel.interop.starflow import StarflowOptions, read_starflow
from pretzel.interop.tarflow import read_tarflow
from pretzel.typing import Tensor

Conversion = tuple[ImportedFlow, RunParts, list[str]]


def convert(options: argparse.Namespace) -> Conversion:
    """Read the checkpoint that the options of ``pretzel import`` name, with notes for the user."""
    tensors = {
        key: value.float() if value.is_floating_point() else value
        for key, value in read_checkpoint(options.file).items()
    }
    return (_tarflow if options.family == "tarflow" else _starflow)(options, tensors)


def _tarflow(options: argparse.Namespace, tensors: dict[str, Tensor]) -> Conversion:
    flow = read_tarflow(tensors, head_dim=options.head_dim, source=str(options.file))
    if options.latent is None:
        patch = patch_of(flow.channels, options.image_channels)
        latent = pixels(flow, patch, options.noise, flow.grid[0])
    else:
        latent = latent_from(options.latent, flow)
        if latent.space.grid != flow.grid:
            raise UserError(
                f"--latent {options.latent} must have the grid {flow.grid} of the learned "
                f"positions, got {latent.space.grid}"
            )
    parts = _run_parts(options, latent, latent.space.noise)
    names = class_names(options.class_names, flow.condition)
    if names is None:
        if options.guidance:
            raise UserError(f"--guidance needs a model with classes, got {options.guidance}")
        return flow, parts, []
    parts = replace(
        parts,
        condition=node("tarflow.ClassNames", names=names),
        guidance=node("sampling.guidance.LinearGuidance", weight=options.guidance),
        prompts=names[:24],
    )
    note = (
        "captions must be names of classes, and the embedded captions are not: "
        "give --data before fit or test"
    )
    return flow, parts, [note] if options.data is None else []


def _starflow(options: argparse.Namespace, tensors: dict[str, Tensor]) -> Conversion:
    names = {field.name for field in fields(StarflowOptions)}
    chosen = {name: value for name, value in vars(options).items() if name in names}
    flow = read_starflow(tensors, StarflowOptions(**chosen), source=str(options.file))
    if options.latent is None:
        if options.img_size is not None and options.img_size % options.patch_size:
            raise UserError(
                f"--img_size must be a multiple of --patch_size, got {options.img_size}"
            )
        rows = flow.grid[0] if options.img_size is None else options.img_size // options.patch_size
        latent = pixels(flow, options.patch_size, options.noise, rows)
    else:
        latent = latent_from(options.latent, flow)
        if len(latent.space.grid) != 2:
            raise UserError(
                f"--latent {options.latent} must have rows and columns, got {latent.space.grid}"
            )
    # Published decoders were tuned on noisy latents (arXiv 2506.06276): they denoise themselves.
    parts = _run_parts(options, latent, options.noise if options.latent is None else 0.0)
    if flow.condition:
        weight = 2.5 if options.guidance is None else options.guidance
        condition = node(
            "tarflow.TextEncoder",
            name=options.text_encoder,
            channels=flow.condition,
            length=flow.text_length,
        )
        guidance = node("sampling.guidance.GaussianMixing", weight=weight)
        parts = replace(parts, condition=condition, guidance=guidance)
    elif options.guidance:
        raise UserError(f"--guidance needs a model with text, got {options.guidance}")
    empty = sorted(set(range(flow.blocks[-1].number)) - {block.number for block in flow.blocks})
    return flow, parts, [f"block {number} has no keys: the identity, left out" for number in empty]


def _run_parts(options: argparse.Namespace, latent: Latent, noise: float) -> RunParts:
    """Return the parts of a run beside the blocks, for a model without a condition.

    A denoiser removes the noise of its samples, if its standard deviation is not 0.
    """
    return RunParts(
        latent=latent.node,
        image_size=latent.space.image_size,
        condition=node("tarflow.NoCondition"),
        guidance=node("sampling.guidance.NoGuidance"),
        denoiser=node(f"sampling.denoisers.{'ScoreDenoiser' if noise else 'NoDenoiser'}"),
        data=None if options.data is None else read_node(options.data, "data"),
    )
