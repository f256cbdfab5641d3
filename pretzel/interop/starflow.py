"""Reads checkpoints of the image models of the public STARFlow (arXiv 2506.06276)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pretzel.errors import UserError
from pretzel.flow.sizes import check_sizes
from pretzel.interop.block_reader import BlockReader, Convert, unchanged
from pretzel.interop.checkpoint import CheckpointKeys
from pretzel.interop.imported_flow import ImportedBlock, ImportedFlow, Node, node, side_of
from pretzel.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class StarflowOptions:
    """Options that shapes do not determine; the defaults are the published 3B model's.

    Attributes:
        head_dim: Channels of a head.
        seq_order: ``L2R`` if the even blocks visit the positions backwards, ``R2L`` if the odd do.
        patch_size: Side of a patch of the latents.
        softplus: Whether scales are softplus(a + ln(e - 1)), or exp(a).
        soft_clip: Bound of the raw parameters; 0 for none.
        hf_style_rope: Whether rotary positions rotate the channel pairs (m, m + d/2) of a head, or
            (2m, 2m + 1).
        pt_seq_len: Positions along a side to which rotary positions are scaled; None to infer it
            from the shape of ``var``.
        text_length: Tokens of the text (``txt_size``); None to infer it from the masks.
        channels_first: Whether a position is to have its patch in our order (channel, row, column),
            or in the published one (row, column, channel).

    Raises:
        UserError: If a value is out of range.
    """

    head_dim: int = 64
    seq_order: str = "L2R"
    patch_size: int = 1
    softplus: bool = True
    soft_clip: float = 4.0
    hf_style_rope: bool = False
    pt_seq_len: int | None = None
    text_length: int | None = None
    channels_first: bool = True

    def __post_init__(self) -> None:
        if self.seq_order not in ("L2R", "R2L"):
            raise UserError(f"seq_order must be L2R or R2L, got {self.seq_order!r}")
        check_sizes(patch_size=self.patch_size)
        if self.soft_clip < 0:
            raise UserError(f"soft_clip must be 0 or positive, got {self.soft_clip}")
        if self.pt_seq_len is not None:
            check_sizes(pt_seq_len=self.pt_seq_len)
        if self.text_length is not None and self.text_length < 0:
            raise UserError(f"text_length must be 0 or positive, got {self.text_length}")


def read_starflow(
    tensors: Mapping[str, Tensor], options: StarflowOptions, *, source: str = "tensors"
) -> ImportedFlow:
    """Read a published model; blocks without layers, which have no keys, are left out.

    Args:
        tensors: Its state dict.
        options: Options that its shapes do not determine.
        source: Origin of the tensors, for messages.

    Raises:
        UserError: If a key is missing, unknown or of the wrong shape, or an option contradicts the
            shapes.
    """
    keys = CheckpointKeys(tensors, source)
    num_blocks = max(keys.count(r"blocks\.(\d+)\."), 1)
    top = num_blocks - 1
    side = options.pt_seq_len
    if side is None:
        side = side_of(keys.size("var", 0), f"{source}: var")
    text_length = options.text_length
    if text_length is None:
        text_length = _text_length(keys, f"blocks.{top}.", side)
    blocks: list[ImportedBlock] = []
    for number in range(num_blocks):
        prefix = f"blocks.{number}."
        if number < top and not keys.count(f"blocks\\.({number})\\."):
            continue
        flips = number % 2 == (1 if options.seq_order == "R2L" else 0)
        reader = BlockReader(keys=keys, prefix=prefix, index=len(blocks))
        blocks.append(read_block(reader, number, flips, options, side, text_length))
    return flow_of(keys, blocks, side, text_length)


def flow_of(
    keys: CheckpointKeys, blocks: list[ImportedBlock], side: int, text_length: int
) -> ImportedFlow:
    """Return blocks of which all keys have been read as a model."""
    keys.leave(r"(blocks?\.(\d+\.)?)attn_mask", "the causal mask, which is never materialised here")
    keys.leave(r"feat_rope(_gen)?\.freqs_(cos|sin)", "a table that the published code does not use")
    keys.leave(r"learnable_self_denoiser\..*", "a denoiser beside the flow, which is not read")
    keys.leave("var", "the published sampling does not use it")
    text = blocks[-1].tensors.get("context.linear.weight")
    return ImportedFlow(
        channels=blocks[-1].tensors["input.weight"].shape[1],
        grid=(side, side),
        blocks=tuple(blocks),
        report=keys.report(),
        condition=0 if text is None else text.shape[1],
        text_length=text_length,
    )


def _text_length(keys: CheckpointKeys, prefix: str, side: int) -> int:
    """Infer the length of the text from the mask, which is over text and positions."""
    mask = f"{prefix}attn_mask"
    if mask in keys and keys.size(mask, 0) >= side**2:
        return keys.size(mask, 0) - side**2
    if f"{prefix}proj_txt.weight" in keys:
        raise UserError(
            f"{keys.source}: key {mask} must tell the length of the text, at least "
            f"{(side**2, side**2)}, found "
            + (f"{tuple(keys.value(mask).shape)}" if mask in keys else "no key")
            + "; give text_length"
        )
    return 0


def read_block(
    block: BlockReader,
    number: int,
    flips: bool,
    options: StarflowOptions,
    side: int,
    text_length: int,
) -> ImportedBlock:
    """Read one block, of a number in the published model; errors as for a model.

    ``side`` is the number of positions along a side to which rotary positions are scaled.
    """
    width = block.width
    every = r"blocks?\.(\d+\.)?"
    channels = block.keys.size(
        f"{block.prefix}proj_in.weight",
        1,
        (every + r"proj_in\.weight", 1),
        (every + "sos_embed", 2),
        ("var", 1),
    )
    to_ours = _patch_order(channels, options)
    block.linear("proj_in", (width, channels), "input", convert_inputs=to_ours)
    start = "flow.ZeroShift"
    if block.keys.any(every + "sos_embed"):
        start = "flow.LatentStart"
        token = (1, 1, channels)
        block.take("sos_embed", token, "start.token", lambda value: to_ours(value[0, 0]))
    num_layers, conditioner = block.transformer(
        width=width, head_dim=options.head_dim, interleaved=not options.hf_style_rope
    )

    def outputs(value: Tensor) -> Tensor:
        return torch.cat([to_ours(part) for part in value.chunk(2)])

    block.linear("proj_out", (2 * channels, width), "head", convert=outputs)
    transform = node("flow.AffineExp")
    if options.softplus:
        transform = node("flow.AffineSoftplus", min_scale=0.0)
    if options.soft_clip:
        transform = node("flow.SoftClip", transform=transform, bound=float(options.soft_clip))
    positions = node("flow.StarflowPositions", side=side, of_text_model=text_length > 0)
    parts: Node = {
        "transform": transform,
        "conditioner": conditioner,
        "positions": positions,
        "start": node(start),
    }
    if block.has("proj_txt.weight"):
        text = block.size("proj_txt.weight", 1)
        block.linear("proj_txt", (width, text), "context.linear")
        parts["context"] = node("flow.PrefixContext", channels=text)
    return block.af_block(number=number, flips=flips, num_layers=num_layers, parts=parts)


def _patch_order(channels: int, options: StarflowOptions) -> Convert:
    """Return the map of a patch's channels from (row, column, c) to (c, row, column)."""
    p = options.patch_size
    if channels % p**2:
        raise UserError(
            f"patch_size squared must divide the {channels} channels of a position, got {p}"
        )
    if p == 1 or not options.channels_first:
        return unchanged
    order = torch.arange(channels).view(p, p, -1).permute(2, 0, 1).flatten()
    return lambda rows: rows[order]
