"""The tiny vision-language model, frozen, as a stream of Pretzel."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from pretzel.files.shipped import file_of
from pretzel.typing import Bool, Float, Int, Tensor
from pretzel.vlm.base import AfterLayer, VLMCache, VLMStream
from pretzel.vlm.cache import PreallocatedCache, checked_cache
from pretzel.vlm.tiny.network import TinyNetwork
from pretzel.vlm.tiny.weights import load_weights

SHIPPED = Path(__file__).with_name("easy_vqa.safetensors")


class TinyVLM(VLMStream):
    """A causal language model of about 0.9 M weights that has learnt to see 32-pixel images.

    It was trained by :class:`pretzel.training.TinyVLMPretraining` on the embedded captions,
    questions and answers, with and without their images. Building it draws no random numbers.

    Args:
        weights: A safetensors file written by that stage, the name of a shipped one (``scenes``,
            which reads and sees the easy tier of :class:`datamodules.Scenes` and its edits), or
            None for that of easy-VQA. A hash in the file's ``.sha256`` must agree.

    Raises:
        UserError: If the file or its hash is missing, or they disagree.
    """

    has_tower = True
    trained_by = "pretzel data tokenizer, then ablations/stages/vlm.yaml"

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        file = file_of("weights", weights, SHIPPED)
        loaded = load_weights(file, needs_hash=file.parent == SHIPPED.parent)
        # No initialisation only to be overwritten, and no draw from the global random state
        with torch.device("meta"):
            self.network = TinyNetwork(loaded.config)
        device = torch.get_default_device()
        state = {name: tensor.to(device) for name, tensor in loaded.tensors.items()}
        self.network.load_state_dict(state, assign=True)
        self.tokenizer = loaded.tokenizer
        self.special = self.tokenizer.special
        self.hidden_size = loaded.config.hidden_size
        self.num_layers = loaded.config.num_layers
        self.vocab_size = loaded.config.vocab_size
        self.identity = f"tiny-vlm:{loaded.sha256}"
        self.freeze()

    def encode_text(self, text: str) -> list[int]:
        """Return token ids of ``text``, without special tokens."""
        return self.tokenizer.encode(text)

    def decode_text(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self.tokenizer.decode(tokens)

    def embed(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l h"]:
        """Return the embeddings of token ids."""
        return self.network.embed(tokens)

    @override
    def encode_images(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> tuple[Float[Tensor, "m n h"], tuple[int, ...]]:
        config = self.network.config
        size = (config.image_size, config.image_size)
        if images.shape[-2:] != size:
            wide = torch.promote_types(images.dtype, torch.float32)  # CPUs resize no bf16
            resized = F.interpolate(images.to(wide), size=size, mode="bilinear", antialias=True)
            images = resized.to(images.dtype)
        embeddings: Tensor = self.network.vision(images)
        side = config.image_size // config.patch_size
        return embeddings, (side, side)

    @override
    def forward(
        self,
        embeddings: Float[Tensor, "b l h"],
        index: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b 1 l k"] | None = None,
        cache: VLMCache | None = None,
        coordinates: Int[Tensor, "b l a"] | None = None,
        after_layer: AfterLayer | None = None,
    ) -> Float[Tensor, "b l h"]:
        if cache is not None:
            cache = checked_cache(cache, mask, embeddings)
        # Image positions are counted in raster order: coordinates say nothing to a Llama.
        states: Tensor = self.network(embeddings, index, mask, cache, after_layer)
        return states

    def decoder_layers(self) -> nn.ModuleList:
        """Return its decoder layers in order."""
        return self.network.decoder.layers

    @property
    def final_norm(self) -> nn.Module:
        """The norm behind the last of them."""
        return self.network.decoder.norm

    def new_cache(self, batch_size: int, max_length: int) -> PreallocatedCache:
        """Return an empty cache for ``batch_size`` rows of at most ``max_length`` positions."""
        return PreallocatedCache(self.network.config.num_layers, batch_size, max_length)

    def logits(self, states: Float[Tensor, "*b h"]) -> Float[Tensor, "*b v"]:
        """Apply the model's own language head to last hidden states."""
        return self.network.logits(states)
