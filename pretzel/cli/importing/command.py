"""``pretzel import``: a published checkpoint becomes a configuration and its weights.

The help needs no torch; what reads and writes is imported when it is needed.
"""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pretzel.cli.importing.arguments import parse
from pretzel.errors import UserError

if TYPE_CHECKING:
    from pretzel.cli.importing.config_nodes import Latent
    from pretzel.cli.importing.run_config import RunParts
    from pretzel.interop.imported_flow import ImportedFlow


def main(args: list[str]) -> int:
    """Run ``pretzel import``.

    Args:
        args: The options.

    Returns:
        The exit code 0.

    Raises:
        UserError: For users' mistakes, before anything is written.
    """
    given = parse(args)
    if not given.force:
        for name in ("config.yaml", "weights.safetensors"):
            if (given.out / name).exists():
                raise UserError(f"--out: {given.out / name} exists; --force replaces it")

    from pretzel.cli.importing.output import write_import
    from pretzel.interop.checkpoint import read_checkpoint

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
) -> tuple["ImportedFlow", "RunParts", list[str]]:
    from pretzel.cli.importing.config_nodes import (
        class_names,
        latent_from,
        part,
        patch_of,
        pixels,
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
    around = _around(given, latent, latent.space.noise)
    names = class_names(given.class_names, flow.condition)
    if names is None:
        if given.guidance:
            raise UserError(f"--guidance needs a model with classes, got {given.guidance}")
        return flow, around, []
    around = replace(
        around,
        condition=part("tarflow.ClassNames", names=names),
        guidance=part("sampling.guidance.LinearGuidance", weight=given.guidance),
        prompts=names[:24],
    )
    note = (
        "the model is told classes by their names, and the embedded captions are none: "
        "give --data before fit or test"
    )
    return flow, around, [note] if given.data is None else []


def _starflow(
    given: argparse.Namespace, tensors: dict[str, Any]
) -> tuple["ImportedFlow", "RunParts", list[str]]:
    from pretzel.cli.importing.config_nodes import latent_from, part, pixels
    from pretzel.interop.starflow import StarflowOptions, read_starflow

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
    # Published decoders of latents were tuned on noisy ones (arXiv 2506.06276): they clean up.
    around = _around(given, latent, given.noise if given.latent is None else 0.0)
    if flow.condition:
        around = replace(
            around,
            condition=part(
                "tarflow.TextEncoder",
                name=given.text_encoder,
                channels=flow.condition,
                length=flow.text_length,
            ),
            guidance=part(
                "sampling.guidance.GaussianMixing",
                weight=2.5 if given.guidance is None else given.guidance,
            ),
        )
    elif given.guidance:
        raise UserError(f"--guidance needs a model with text, got {given.guidance}")
    empty = sorted(set(range(flow.blocks[-1].number)) - {block.number for block in flow.blocks})
    return flow, around, [f"block {number} has no keys: the identity, left out" for number in empty]


def _around(given: argparse.Namespace, latent: "Latent", noise: float) -> "RunParts":
    """Return what stands around a model that knows no condition.

    Args:
        given: The options.
        latent: Its latent space.
        noise: Standard deviation of the noise that only the flow can remove; 0 for none.
    """
    from pretzel.cli.importing.config_nodes import part, read_node
    from pretzel.cli.importing.run_config import RunParts

    return RunParts(
        latent=latent.node,
        image_size=latent.space.image_size,
        condition=part("tarflow.NoCondition"),
        guidance=part("sampling.guidance.NoGuidance"),
        denoiser=part(f"sampling.denoisers.{'ScoreDenoiser' if noise else 'NoDenoiser'}"),
        data=None if given.data is None else read_node(given.data, "data"),
    )
