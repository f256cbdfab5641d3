"""Reads checkpoints of the public TarFlow (arXiv 2412.06329, apple/ml-tarflow)."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from pretzel.errors import UserError
from pretzel.interop.block_reader import BlockReader
from pretzel.interop.checkpoint import CheckpointKeys
from pretzel.interop.imported_flow import ImportedBlock, ImportedFlow, Node, node, side_of
from pretzel.typing import Tensor


def read_tarflow(
    tensors: Mapping[str, Tensor], *, head_dim: int = 64, source: str = "tensors"
) -> ImportedFlow:
    """Read a published model.

    Its prior N(0, var), which only the volume-preserving variant learns, becomes the free scale of
    the last block, so that the prior of ours is the standard normal.

    Args:
        tensors: Its state dict.
        head_dim: Channels of a head, which cannot be inferred from shapes.
        source: Origin of the tensors, for messages.

    Raises:
        UserError: If a key is missing, unknown or of the wrong shape, or ``head_dim`` does not
            divide the heads.
    """
    keys = CheckpointKeys(tensors, source)
    # At least one block: where all are missing, the error names the first key that is.
    num_blocks = max(keys.count(r"blocks\.(\d+)\."), 1)
    blocks = [
        read_block(keys, f"blocks.{number}.", number, number % 2 == 1, head_dim)
        for number in range(num_blocks)
    ]
    positions = blocks[0].tensors["positions.vectors"].shape[0]
    channels = blocks[0].tensors["input.weight"].shape[1]
    transform: str = blocks[-1].node["init_args"]["transform"]["class_path"]
    if transform.endswith(".VolumePreserving"):
        blocks[-1] = _with_prior(keys, blocks[-1], positions, channels)
    elif "var" in keys and not bool((keys.value("var") == 1).all()):
        low, high = keys.value("var").aminmax()
        raise UserError(
            f"{source}: key var must be 1 throughout where scales depend on the data, as the "
            f"published training leaves it, found {float(low):.4g} to {float(high):.4g}"
        )
    return flow_of(keys, blocks, (side_of(positions, f"{source}: blocks.0.pos_embed"),) * 2)


def flow_of(
    keys: CheckpointKeys, blocks: list[ImportedBlock], grid: tuple[int, ...]
) -> ImportedFlow:
    """Return blocks of which all keys have been read as a model."""
    keys.leave(r"(blocks\.\d+\.)?attn_mask", "the causal mask, which is never materialised here")
    keys.leave("var", "the prior is the standard normal where scales depend on the data")
    classes = blocks[0].tensors.get("context.vector.vectors")
    return ImportedFlow(
        channels=blocks[0].tensors["input.weight"].shape[1],
        grid=grid,
        blocks=tuple(blocks),
        report=keys.report(),
        condition=0 if classes is None else len(classes),
    )


def read_block(
    keys: CheckpointKeys, prefix: str, number: int, flips: bool, head_dim: int
) -> ImportedBlock:
    """Read one block, whose keys begin with ``prefix``; errors as for a model."""
    block = BlockReader(keys=keys, prefix=prefix, index=number)
    width = block.width
    every = r"(blocks\.\d+\.)?"  # all blocks share positions, channels and classes
    channels = keys.size(f"{prefix}proj_in.weight", 1, (every + r"proj_in\.weight", 1), ("var", 1))
    outputs = block.size("proj_out.weight", 0, ("proj_out.bias", 0))
    positions = keys.size(
        f"{prefix}pos_embed", 0, (every + "pos_embed", 0), (every + "attn_mask", 0), ("var", 0)
    )
    if outputs not in (channels, 2 * channels):
        raise UserError(
            f"{keys.source}: key {prefix}proj_out.weight must have shape "
            f"{(2 * channels, width)}, or {(channels, width)} of the volume-preserving variant, "
            f"found {(outputs, width)}"
        )
    block.linear("proj_in", (width, channels), "input")
    block.take("pos_embed", (positions, width), "positions.vectors")
    # No rotary positions: the channels of a head have no pairs.
    num_layers, conditioner = block.transformer(width=width, head_dim=head_dim, interleaved=False)
    block.linear("proj_out", (outputs, width), "head")
    transform = node("flow.AffineExp")
    if outputs == channels:
        transform = node("flow.VolumePreserving", learn_variance=False)
    parts: Node = {
        "transform": transform,
        "conditioner": conditioner,
        "positions": node("flow.LearnedPositions"),
        "start": node("flow.ZeroShift"),
    }
    if keys.any(every + "class_embed"):
        classes = keys.size(f"{prefix}class_embed", 0, (every + "class_embed", 0))
        shape = (classes, 1, width)
        block.take("class_embed", shape, "context.vector.vectors", lambda value: value[:, 0])
        vector = node("flow.ClassVector", num_classes=classes)
        parts["context"] = node("flow.AddedContext", vector=vector)
    return block.af_block(number=number, flips=flips, num_layers=num_layers, parts=parts)


def _with_prior(
    keys: CheckpointKeys, block: ImportedBlock, positions: int, channels: int
) -> ImportedBlock:
    """Return the last block with the prior's standard deviation as its scale."""
    var = keys.take("var", (positions, channels), f"blocks.{block.number}.free")
    if not bool((var > 0).all()):
        raise UserError(f"{keys.source}: key var must be positive, found {float(var.min())}")
    order = block.permutation.order((positions,))
    # The published inverse starts from z sqrt(var): s = exp(a), a = log(var) / 2.
    free = 0.5 * torch.log(var)[order]
    arguments = block.node["init_args"] | {"transform": node("flow.VolumePreserving")}
    return replace(
        block, node=node("flow.AFBlock", **arguments), tensors=block.tensors | {"free": free}
    )
