"""The causal transformer of flow blocks: pre-norm, RoPE, SDPA, and its options.

With equal-length or right-padded rows attention runs with ``is_causal`` and no mask is ever
materialised. Behind a cache a single position needs no mask, several get a lower-right causal one;
the caller gives a mask where rows are padded.
"""

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pretzel.errors import UserError
from pretzel.flow.cache import KVCache
from pretzel.flow.compiled_decoding import run_layers
from pretzel.flow.compiled_layers import run_compiled
from pretzel.flow.conditioner import LayeredConditioner, Modulation, Rotation
from pretzel.flow.decoding import Layout, layout_of
from pretzel.flow.mlp import MLP, MLPFactory
from pretzel.flow.norms import NormFactory, RMSNorm
from pretzel.flow.sizes import check_sizes
from pretzel.flow.transformer_layer import Attention, Layer
from pretzel.sequence.masks import Mask, causal_mask
from pretzel.typing import Float, Tensor


class CausalTransformer(LayeredConditioner[KVCache]):
    """A stack of causal pre-norm layers.

    Args:
        num_layers: Layers (given by the split).
        width: Channels of the residual stream.
        head_dim: Channels of a head.
        num_heads: Query heads; None for ``width // head_dim``.
        num_kv_heads: Key and value heads (grouped-query attention, arXiv 2305.13245); None for as
            many as query heads.
        mlp: Position-wise branch; None for a GELU :class:`~pretzel.flow.mlp.MLP` of ratio 4.
        norm: Every norm; None for :class:`~pretzel.flow.norms.RMSNorm`.
        pre_norm: Norm before each branch; None for ``norm``. STARFlow's layer norms stand only
            there.
        qk_norm: Whether queries and keys are normalised before RoPE (arXiv 2302.05442).
        post_norm: Whether each branch's output is normalised as well.
        final_norm: Whether the last state is.
        bias: Whether the linear maps of the layers have one.
        gated_attention: Whether a sigmoid gate multiplies the heads' output (arXiv 2505.06708).
        gradient_checkpointing: Recompute layers in the backward pass instead of keeping their
            activations.
        compile: Compile the layers for training (TorchInductor): the first step takes up to a
            minute longer, the others less. Where there is no compiler the log says so.

    Raises:
        UserError: If a size is not positive, or the sizes do not divide each other.
    """

    def __init__(
        self,
        num_layers: int,
        *,
        width: int,
        head_dim: int,
        num_heads: int | None = None,
        num_kv_heads: int | None = None,
        mlp: MLPFactory | None = None,
        norm: NormFactory | None = None,
        pre_norm: NormFactory | None = None,
        qk_norm: bool = True,
        post_norm: bool = False,
        final_norm: bool = True,
        bias: bool = True,
        gated_attention: bool = False,
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 0:
            raise UserError(f"num_layers must be 0 or positive, got {num_layers}")
        check_sizes(width=width, head_dim=head_dim)
        if num_heads is None:
            if width % head_dim:
                raise UserError(f"head_dim must divide width={width}, got {head_dim}")
            num_heads = width // head_dim
        check_sizes(num_heads=num_heads)
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if kv_heads < 1 or num_heads % kv_heads:
            raise UserError(f"num_kv_heads must divide num_heads={num_heads}, got {kv_heads}")
        make_norm: NormFactory = norm or RMSNorm
        make_mlp: MLPFactory = mlp or MLP
        self.num_layers = num_layers
        self.width = width
        self.rotary_dim = head_dim
        self.head_dim = head_dim
        self.num_heads = num_heads
        self.num_kv_heads = kv_heads
        self.gradient_checkpointing = gradient_checkpointing
        self.compiles = compile
        make_attention = partial(
            Attention,
            width=width,
            head_dim=head_dim,
            num_heads=num_heads,
            num_kv_heads=kv_heads,
            norm=make_norm if qk_norm else None,
            bias=bias,
            gated=gated_attention,
        )
        make_layer = partial(
            Layer,
            width=width,
            pre_norm=pre_norm or make_norm,
            post_norm=make_norm if post_norm else None,
        )
        layers = [make_layer(make_attention(), make_mlp(width, bias)) for _ in range(num_layers)]
        self.layers = nn.ModuleList(layers)
        self.final_norm = make_norm(width) if final_norm else None
        self.apply(self._initialise)
        # Branch outputs start small so that depth does not change the scale of the stream.
        for layer in layers:
            for linear in (layer.attention.out, layer.mlp.down):
                assert isinstance(linear, nn.Linear)
                nn.init.normal_(linear.weight, std=0.02 / (2 * num_layers) ** 0.5)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def run(
        self,
        h: Float[Tensor, "b l w"],
        start: int,
        stop: int,
        rotation: Rotation | None = None,
        mask: Mask | None = None,
        cache: KVCache | None = None,
        modulation: Modulation | None = None,
    ) -> Float[Tensor, "b l w"]:
        """Run layers ``start`` to ``stop - 1``; arguments as in ``forward``."""
        length = h.shape[1]
        if mask is None and cache is not None and cache.length and length > 1:
            # is_causal aligns top-left: right only while the cache is empty.
            mask = causal_mask(length, cache.length, h.device)
        layout = self._layout(cache, is_modulated=modulation is not None)
        if cache is not None and layout is not None:
            place, states = layout.place(cache, length, rotation, mask), h.reshape(-1, self.width)
            numbers = range(start, stop)
            return run_layers(layout, states, place, cache, numbers, modulation).view_as(h)
        is_training = cache is None and torch.is_grad_enabled()
        recompute = self.gradient_checkpointing and is_training
        for index in range(start, stop):
            layer = self.layers[index]
            of_layer = None if modulation is None else modulation[:, index, :, None]
            run = partial(layer, cache=cache, layer=index)
            if self.compiles and is_training:
                run = partial(run_compiled, layer)
            args = (h, rotation, mask)
            if recompute:
                h = checkpoint(run, *args, modulation=of_layer, use_reentrant=False)
            else:
                h = run(*args, modulation=of_layer)
        return h

    def finish(
        self, h: Float[Tensor, "b l w"], cache: KVCache | None = None
    ) -> Float[Tensor, "b l w"]:
        """Apply the final norm; commit the new positions to the cache."""
        if cache is not None:
            cache.commit(h.shape[1])
            layout = cache.layout
            if isinstance(layout, Layout) and not torch.is_grad_enabled():
                return layout.finish(h)
        return h if self.final_norm is None else self.final_norm(h)

    def _layout(self, cache: KVCache | None, *, is_modulated: bool) -> Layout | None:
        if cache is None:
            return None
        return layout_of(self.layers, self.final_norm, cache, is_modulated=is_modulated)

    def new_cache(
        self, batch_size: int, max_length: int, temperature: Float[Tensor, " b"] | None = None
    ) -> KVCache:
        """Return an empty cache for this transformer."""
        shape = (len(self.layers), batch_size, self.num_kv_heads, max_length, self.head_dim)
        return KVCache(shape, next(self.parameters()), temperature)
