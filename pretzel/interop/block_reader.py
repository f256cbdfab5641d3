"""Reads the tensors of one published block under our names.

Both families share the residual layers, whose tensors differ from ours in name, in the pairing of
rotated channels and in the offset of RMS gains.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from pretzel.errors import UserError
from pretzel.interop.checkpoint import CheckpointKeys
from pretzel.interop.imported_flow import ImportedBlock, Node, node
from pretzel.typing import Tensor

Convert = Callable[[Tensor], Tensor]


def unchanged(value: Tensor) -> Tensor:
    """Return a tensor as it is."""
    return value


@dataclass(kw_only=True)
class BlockReader:
    """Reads the tensors of one block, whose keys have a prefix, under our names.

    ``index`` is the number of the block in our stack.
    """

    keys: CheckpointKeys
    prefix: str
    index: int
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def has(self, key: str) -> bool:
        """Tell whether the block has a key."""
        return self.prefix + key in self.keys

    def any(self, pattern: str) -> bool:
        """Tell whether one of the block's keys, without its prefix, is matched by a pattern."""
        return self.keys.any(re.escape(self.prefix) + pattern)

    def size(self, key: str, axis: int, *others: tuple[str, int]) -> int:
        """Return a size that the block's tensors share (see :meth:`CheckpointKeys.size`)."""
        prefix = re.escape(self.prefix)
        patterns = ((prefix + pattern, at) for pattern, at in others)
        return self.keys.size(self.prefix + key, axis, *patterns)

    @property
    def width(self) -> int:
        """Channels of the network."""
        others = (("proj_in.bias", 0), ("proj_out.weight", 1), ("pos_embed", 1))
        return self.size("proj_in.weight", 0, *others)

    def take(
        self, key: str, shape: tuple[int, ...], name: str, convert: Convert = unchanged
    ) -> None:
        """Take a tensor of a shape as ``name``, converted."""
        value = self.keys.take(self.prefix + key, shape, f"blocks.{self.index}.{name}")
        self.tensors[name] = convert(value)

    def linear(
        self,
        key: str,
        shape: tuple[int, int],
        name: str,
        *,
        bias: bool = True,
        convert: Convert = unchanged,
        convert_inputs: Convert = unchanged,
    ) -> None:
        """Take a linear map, its outputs converted in weight and bias, its inputs in the weight."""
        weight = f"{name}.weight"
        self.take(f"{key}.weight", shape, weight, lambda w: convert_inputs(convert(w).T).T)
        if bias:
            self.take(f"{key}.bias", shape[:1], f"{name}.bias", convert)

    def layer_norm(self, key: str, width: int, name: str) -> None:
        """Take a layer norm."""
        for part in ("weight", "bias"):
            self.take(f"{key}.{part}", (width,), f"{name}.{part}")

    def rms_norm(self, key: str, width: int, name: str, convert: Convert = unchanged) -> None:
        """Take an RMS norm, whose published gain is an offset from 1."""
        self.take(f"{key}.weight", (width,), f"{name}.weight", lambda gain: 1 + convert(gain))

    def transformer(self, *, width: int, head_dim: int, interleaved: bool) -> tuple[int, Node]:
        """Take the residual layers and the final norm; return how many, and the conditioner's node.

        ``interleaved``: whether rotary positions rotate the channel pairs (2m, 2m + 1) of a head.

        Raises:
            UserError: If a key is missing or has the wrong shape, or ``head_dim`` does not divide
                the heads.
        """
        num_layers = self.keys.count(re.escape(f"{self.prefix}attn_blocks.") + r"(\d+)\.")
        if head_dim < 1 or (interleaved and head_dim % 2):
            raise UserError(f"head_dim must be positive and even, got {head_dim}")
        style = self._style(width, head_dim) if num_layers else None
        pairs = partial(_half_split, head_dim=head_dim) if interleaved else unchanged
        for layer in range(num_layers):
            assert style is not None
            self._layer(f"attn_blocks.{layer}", f"conditioner.layers.{layer}", style, pairs)
        final_norm = self.has("final_norm.weight")
        if final_norm:
            self.rms_norm("final_norm", width, "conditioner.final_norm")
        options: Node = {"width": width, "head_dim": head_dim}
        options |= style.options if style is not None else {"qk_norm": False}
        options["final_norm"] = final_norm
        if style is not None and style.layer_norm:
            only_norm = not (style.qk_norm or style.post_norm or final_norm)
            options["norm" if only_norm else "pre_norm"] = node("flow.LayerNorm")
        return num_layers, node("flow.CausalTransformer", **options)

    def af_block(self, *, number: int, flips: bool, num_layers: int, parts: Node) -> ImportedBlock:
        """Return the block with its parts' nodes, once all of its tensors have been taken."""
        return ImportedBlock(
            number=number,
            flips=flips,
            num_layers=num_layers,
            node=node("flow.AFBlock", **parts),
            tensors=self.tensors,
        )

    def _style(self, width: int, head_dim: int) -> "_Style":
        """Infer the options of the layers from keys and shapes."""
        first, every = "attn_blocks.0", r"attn_blocks\.\d+\."
        gated = self.any(every + r"mlp\.gate_proj\..*")
        ups, down = (r"(gate|up)_proj", "down_proj") if gated else (r"main\.0", r"main\.2")
        rows = self.size(
            f"{first}.attention.qkv.weight", 0, (every + r"attention\.qkv\.(weight|bias)", 0)
        )
        queries = self.size(
            f"{first}.attention.proj.weight", 1, (every + r"attention\.proj\.weight", 1)
        )
        hidden = self.size(
            f"{first}.mlp.{'gate_proj' if gated else 'main.0'}.weight",
            0,
            (every + rf"mlp\.{ups}\.(weight|bias)", 0),
            (every + rf"mlp\.{down}\.weight", 1),
        )
        if queries % head_dim or (rows - queries) % (2 * head_dim):
            raise UserError(
                f"head_dim must divide the {queries} channels of the queries of "
                f"{self.prefix}{first} and the {rows - queries} of its keys and values in two, "
                f"got {head_dim}"
            )
        return _Style(
            width=width,
            head_dim=head_dim,
            num_heads=queries // head_dim,
            num_kv_heads=(rows - queries) // (2 * head_dim),
            hidden=hidden,
            gated=gated,
            layer_norm=self.any(every + r"(attention|mlp)\.norm\.bias"),
            qk_norm=self.any(every + r"attention\.(query|key)_norm\.weight"),
            post_norm=self.any(every + r"(attention|mlp)\.post_norm\.weight"),
            bias=self.any(every + r"(attention\.(qkv|proj)|mlp\.(main\.\d|\w+_proj))\.bias"),
        )

    def _layer(self, key: str, name: str, style: "_Style", pairs: Convert) -> None:
        width, bias = style.width, style.bias
        queries = style.num_heads * style.head_dim
        values = style.num_kv_heads * style.head_dim

        def rotated(rows: Tensor) -> Tensor:
            return torch.cat([pairs(rows[: queries + values]), rows[queries + values :]])

        pre_norm = self.layer_norm if style.layer_norm else self.rms_norm
        pre_norm(f"{key}.attention.norm", width, f"{name}.attention_norm")
        qkv, shape = "attention.qkv", (queries + 2 * values, width)
        self.linear(f"{key}.{qkv}", shape, f"{name}.{qkv}", bias=bias, convert=rotated)
        if style.qk_norm:
            for norm in ("attention.query_norm", "attention.key_norm"):
                self.rms_norm(f"{key}.{norm}", style.head_dim, f"{name}.{norm}", pairs)
        self.linear(f"{key}.attention.proj", (width, queries), f"{name}.attention.out", bias=bias)
        if style.post_norm:
            self.rms_norm(f"{key}.attention.post_norm", width, f"{name}.attention_post_norm")
        pre_norm(f"{key}.mlp.norm", width, f"{name}.mlp_norm")
        maps = {"main.0": "up", "main.2": "down"}
        if style.gated:
            maps = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
        for published, ours in maps.items():
            shape = (width, style.hidden) if ours == "down" else (style.hidden, width)
            self.linear(f"{key}.mlp.{published}", shape, f"{name}.mlp.{ours}", bias=bias)
        if style.post_norm:
            self.rms_norm(f"{key}.mlp.post_norm", width, f"{name}.mlp_post_norm")


@dataclass(frozen=True, kw_only=True)
class _Style:
    """Options that all layers of a block share."""

    width: int
    head_dim: int
    num_heads: int
    num_kv_heads: int
    hidden: int
    gated: bool
    layer_norm: bool
    qk_norm: bool
    post_norm: bool
    bias: bool

    @property
    def options(self) -> Node:
        """Arguments of the conditioner, but for the norm before each branch."""
        options: Node = {"qk_norm": self.qk_norm}
        if self.num_heads * self.head_dim != self.width:
            options["num_heads"] = self.num_heads
        if self.num_kv_heads != self.num_heads:
            options["num_kv_heads"] = self.num_kv_heads
        ratio = self.hidden / self.width
        if int(self.width * ratio) != self.hidden:  # rounded down by the division
            ratio = (self.hidden + 0.5) / self.width
        if self.gated or ratio != 4:
            options["mlp"] = node("flow.GEGLU" if self.gated else "flow.MLP", ratio=ratio)
        if self.post_norm:
            options["post_norm"] = True
        if not self.bias:
            options["bias"] = False
        return options


def _half_split(rows: Tensor, head_dim: int) -> Tensor:
    """Move the channel pairs (2m, 2m + 1) of every head to (m, m + d/2), the pairs that we rotate.

    The channels of queries and keys are moved alike, so that their products do not change.
    """
    heads = rows.view(-1, head_dim // 2, 2, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)
