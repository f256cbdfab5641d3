"""The tiny vision-language model itself: a Llama stack of a few layers and a patch tower.

The stack is transformers' own, built from a ``LlamaConfig``, with two parts replaced so that
it can run in float64 too (the laws ask for cached = uncached at 1e-10): its RMSNorm and its
rotary embedding compute in float32 whatever they are given.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from pretzel.errors import UserError
from pretzel.typing import Bool, Float, Int, Tensor
from pretzel.vlm.base import AfterLayer
from pretzel.vlm.cache import PreallocatedCache

# Of easy-VQA, whose paper is light: unstandardised, shapes take several times longer to learn
PIXEL_MEAN, PIXEL_STD = 0.8, 0.4


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Sizes of a tiny vision-language model, as :class:`pretzel.training.TinyVLMPretraining` says.

    ``vocab_size`` counts special tokens too, ``num_heads`` divide ``hidden_size``, and
    ``rope_theta`` is the base of the rotary frequencies.
    """

    vocab_size: int
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    intermediate_size: int = 320
    rope_theta: float = 1000.0
    image_size: int = 32
    patch_size: int = 4

    def llama(self) -> LlamaConfig:
        """Return the transformers configuration of the language model."""
        config = LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            intermediate_size=self.intermediate_size,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            tie_word_embeddings=True,
            initializer_range=0.05,  # the default 0.02 is for widths of thousands
            bos_token_id=None,
            eos_token_id=None,
        )
        config._attn_implementation = "sdpa"
        return config


class Rotary(nn.Module):
    """Cosines and sines of rotary positions (RoFormer, arXiv 2104.09864, equation 15).

    It has no buffers: nothing to round when the model is cast to a shorter type, nothing left
    behind on the meta device.
    """

    def __init__(self, head_dim: int, theta: float) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.theta = theta

    def forward(
        self, x: Float[Tensor, "b l h"], position_ids: Int[Tensor, "b l"]
    ) -> tuple[Float[Tensor, "b l c"], Float[Tensor, "b l c"]]:
        """Return cosines and sines in the type of ``x``, computed in float32 or longer."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        exponent = torch.arange(0, self.head_dim, 2, device=x.device, dtype=dtype) / self.head_dim
        angle = position_ids[..., None].to(dtype) * self.theta**-exponent
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


class VisionTower(nn.Module):
    """Each patch through one small MLP, plus row and column embeddings.

    Nothing here mixes patches: to recognise shapes is left to the layers of the language model,
    which must do it for an adapter on the flow's latents as well.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        if config.image_size % config.patch_size:
            raise UserError(
                f"patch_size must divide image_size={config.image_size}, got {config.patch_size}"
            )
        self.image_size = config.image_size
        side = config.image_size // config.patch_size
        width = config.hidden_size
        self.patches = nn.Conv2d(3, 3 * width, config.patch_size, stride=config.patch_size)
        self.mlp = nn.Linear(3 * width, width)
        self.rows = nn.Parameter(torch.randn(side, 1, width) * 0.2)
        self.columns = nn.Parameter(torch.randn(1, side, width) * 0.2)

    def forward(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n h"]:
        """Return one embedding a patch, raster order.

        Raises:
            UserError: If the images are not square with side ``image_size``.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise UserError(
                f"images must be {self.image_size} x {self.image_size} pixels for this vision "
                f"tower, got {tuple(images.shape[-2:])}"
            )
        x = F.gelu(self.patches((images - PIXEL_MEAN) / PIXEL_STD).permute(0, 2, 3, 1))
        embeddings: Tensor = self.mlp(x) + self.rows + self.columns
        return embeddings.flatten(1, 2)


class TinyNetwork(nn.Module):
    """Embedding, decoder layers, tied head and vision tower, as they are trained."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        llama = config.llama()
        self.decoder = LlamaModel(llama)
        rotary = Rotary(config.hidden_size // config.num_heads, config.rope_theta)
        # In place of transformers' own, which round to float32: see the top of this file
        self.decoder.add_module("rotary_emb", rotary)
        for module in list(self.decoder.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, LlamaRMSNorm):
                    setattr(module, name, nn.RMSNorm(config.hidden_size, llama.rms_norm_eps))
        self.vision = VisionTower(config)

    def embed(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l h"]:
        """Return the embeddings of token ids."""
        embeddings: Tensor = self.decoder.embed_tokens(tokens)
        return embeddings

    def forward(
        self,
        embeddings: Float[Tensor, "b l h"],
        index: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b 1 l k"] | None = None,
        cache: PreallocatedCache | None = None,
        after_layer: AfterLayer | None = None,
    ) -> Float[Tensor, "b l h"]:
        """Run the decoder; arguments as in :meth:`pretzel.vlm.base.VLMStream.forward`.

        The layers are called one by one because ``LlamaModel.forward`` guesses at packed
        sequences from the position ids, and would cut a row at padding.
        """
        x = embeddings
        positions = self.decoder.rotary_emb(x, index)
        keys = None if cache is None else cache.hub
        for number, layer in enumerate(self.decoder.layers):
            x = layer(x, attention_mask=mask, position_embeddings=positions, past_key_values=keys)
            if after_layer is not None:
                x = after_layer(number, x)
        states: Tensor = self.decoder.norm(x)
        return states

    def logits(self, states: Float[Tensor, "*b h"]) -> Float[Tensor, "*b v"]:
        """Apply the head, which is the embedding's own matrix."""
        return F.linear(states, self.decoder.embed_tokens.weight)
