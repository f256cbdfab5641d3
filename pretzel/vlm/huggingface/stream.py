"""Hugging Face models, frozen, as streams of Pretzel.

The models run through their own modules; other streams join the residual stream by forward hooks
on the models' own decoder layers, so that masks, caches and positions stay theirs.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.files.weights import content_hash
from pretzel.typing import Bool, Float, Int, Tensor
from pretzel.vlm.base import AfterLayer, VLMCache, VLMStream
from pretzel.vlm.cache import PreallocatedCache, checked_cache
from pretzel.vlm.huggingface.families import VisionFamily, family_of
from pretzel.vlm.huggingface.layers import recomputed_backward, streams_joined, without_position_ids
from pretzel.vlm.huggingface.loading import (
    Attention,
    DType,
    build_model,
    load_config,
    load_tokenizer,
)
from pretzel.vlm.huggingface.masks import causal, for_attention
from pretzel.vlm.huggingface.preprocessing import load_preprocessing
from pretzel.vlm.huggingface.tokens import ROLES, special_tokens
from pretzel.vlm.huggingface.untyped import TextTokenizer

# Entries of a configuration that do not change what the model computes
_NOT_CONTENT = ("transformers_version", "_name_or_path", "name_or_path", "dtype", "architectures")


class HuggingFaceVLM(VLMStream):
    """A frozen Qwen2.5-VL, Qwen3-VL, SmolVLM, LLaVA, or a plain Llama, Qwen2 or Qwen3.

    Its precision is its own: it stays what ``dtype`` says whatever the rest of the model is cast
    to, embeddings are cast on the way in and states on the way out. On the meta device nothing is
    read but the configurations (and the tokenizer of ``name``). No text can spell a special token.

    Args:
        name: Hub id or local folder. Code from it is never executed.
        config: In its place, a transformers configuration with its ``model_type``; the weights
            are random.
        tokenizer: Hub id or local folder; None for that of ``name``. Beside ``config`` it is
            loaded when text is first encoded, and special tokens are those of ``config``.
        dtype: Precision of the weights.
        attention: Implementation of attention.
        gradient_checkpointing: Recompute each decoder layer in the backward pass, in place of
            keeping its activations.
        device: Where it stays, for example ``cuda:1``; None to follow the rest of the model.
        begin_of_image: Token before an image; None for the family's, or else a new one whose
            embedding is learned.
        end_of_image: Token after an image; None likewise.
        end_of_text: Token that ends a supervised run of text; None for the family's.
        pad: Token that fills rows; None for the family's.
        min_pixels: Least that an image has for its tower, in a family that takes any size; None
            for that of its preprocessor, or else of the family.
        max_pixels: Most that it has; None likewise.
        seed: Of random weights.

    Raises:
        UserError: If not exactly one of ``name`` and ``config`` is given, one cannot be loaded or
            is of no known family, a token is unknown or a text can spell it, limits of pixels
            cannot be met, or there is no such device.
    """

    def __init__(
        self,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        dtype: DType = "float32",
        attention: Attention = "sdpa",
        gradient_checkpointing: bool = False,
        device: str | None = None,
        begin_of_image: str | None = None,
        end_of_image: str | None = None,
        end_of_text: str | None = None,
        pad: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        loaded = load_config(name, config)
        self.name = name
        self.family = family_of(loaded.model_type, name or "config")
        self.attention: Attention = attention
        self.gradient_checkpointing = gradient_checkpointing
        self.pinned = None if device is None else _device(device)
        self._tokenizer_source = tokenizer or name
        self._tokenizer: Any = None
        self._hash = ""

        text = loaded.get_text_config()
        self.hidden_size: int = text.hidden_size
        self.num_layers: int = text.num_hidden_layers
        self.vocab_size: int = text.vocab_size
        tokens = (begin_of_image, end_of_image, end_of_text, pad)
        vocabulary = self.tokenizer if name is not None or any(tokens) else None
        self.special = special_tokens(
            dict(zip(ROLES, tokens, strict=True)), self.family, loaded, self.vocab_size, vocabulary
        )
        default = self.family.preprocessing
        self.has_tower = default is not None
        takes_any_size = default is not None and default.pixels is not None
        if (min_pixels, max_pixels) != (None, None) and not takes_any_size:
            raise UserError(
                "min_pixels and max_pixels are for families that take images of any size, got a "
                f"model of {loaded.model_type}"
            )
        self.preprocessing = (
            None if default is None else load_preprocessing(name, default, min_pixels, max_pixels)
        )
        self.model: Any = build_model(name, loaded, self.family, dtype, attention, seed)
        if self.pinned is not None and not self._weight.is_meta:
            self.model.to(self.pinned)
        self.freeze()

    @property
    def identity(self) -> str:  # type: ignore[override]  # a slow hash: computed at first use
        """Kind of the model, and hash of configuration, weights, special tokens, preprocessing."""
        if not self._hash:
            config = self.model.config.to_diff_dict()
            for name in _NOT_CONTENT:
                config.pop(name, None)
            text = json.dumps(config, sort_keys=True, default=str)
            text += json.dumps(vars(self.special))
            if self.preprocessing is not None:
                text += json.dumps(vars(self.preprocessing))
            text += content_hash(self.model.state_dict())
            self._hash = hashlib.sha256(text.encode()).hexdigest()
        return f"{self.model.config.model_type}:{self._hash}"

    @property
    def tokenizer(self) -> TextTokenizer:
        """The transformers tokenizer, loaded at first use.

        Raises:
            UserError: If there is none.
        """
        if self._tokenizer is None:
            if self._tokenizer_source is None:
                raise UserError(
                    "tokenizer must be given beside config where text or token strings are used, "
                    "got None"
                )
            # Late, so that a configuration without text can be planned without the files
            self._tokenizer = load_tokenizer(self._tokenizer_source)
        return self._tokenizer

    @property
    def decoder(self) -> nn.Module:
        """Its inner text model: embeddings, ``layers``, final norm."""
        decoder: nn.Module = self.model.get_submodule(self.family.decoder_name)
        return decoder

    @property
    def _weight(self) -> Tensor:
        """A weight, whose precision and device are the model's."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def image_index(self, grid: tuple[int, ...]) -> tuple[list[int], int]:
        """Return how the absolute index counts over an image.

        Where positions have three axes, an image has one index, and goes on from it by its
        longest side (Qwen2-VL, arXiv 2409.12191, section 2.1); else positions count in raster
        order.
        """
        offsets, length = super().image_index(grid)
        return ([0] * len(offsets), max(grid)) if self.family.counts_axes else (offsets, length)

    def encode_images(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> tuple[Float[Tensor, "m n h"], tuple[int, ...]]:
        """Return features of its vision tower, one a position in raster order, and their grid.

        Images are resized and their colours normalised as by the model's own preprocessor.

        Raises:
            UserError: If it has no vision tower, or an image is too long for it.
        """
        if self.preprocessing is None or not isinstance(self.family, VisionFamily):
            return super().encode_images(images)
        prepared = self.family.prepare(self.model.config, images, self.preprocessing)
        features, grid = self.family.features(self.model, prepared.to(self._weight))
        return features.to(images), grid

    def encode_text(self, text: str) -> list[int]:
        """Return token ids of ``text``, without special tokens.

        Raises:
            UserError: If there is no tokenizer, or it is that of a larger vocabulary.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids and max(ids) >= self.vocab_size:
            raise UserError(
                f"tokenizer must be the model's own, which has {self.vocab_size} tokens, got "
                f"{self._tokenizer_source}, which makes token {max(ids)} of {text!r}"
            )
        return ids

    def decode_text(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        special = set(vars(self.special).values())
        ordinary = [i for i in tokens if i < self.vocab_size and i not in special]
        text: str = self.tokenizer.decode(
            ordinary, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def embed(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l h"]:
        """Return the embeddings of token ids, in the model's own precision."""
        embeddings: Tensor = self.model.get_input_embeddings()(tokens.to(self._weight.device))
        return embeddings.to(tokens.device)

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
        keys = None if cache is None else checked_cache(cache, mask, embeddings)
        weight = self._weight
        rows = embeddings.to(weight)
        if mask is None:
            attended: Tensor | None = causal(rows)
        else:
            attended = for_attention(mask.to(weight.device), self.attention, weight.dtype)
        # Keys that a layer writes to a cache would be written twice
        recompute = self.gradient_checkpointing and keys is None and torch.is_grad_enabled()
        layers = self.decoder_layers()
        with (
            streams_joined(layers, after_layer, embeddings),
            # Flash attention takes a jump in the position ids of a single row for packed sequences
            without_position_ids(layers if self.attention == "flash_attention_2" else []),
            recomputed_backward(layers if recompute else []),
        ):
            states: Tensor = self.decoder(
                inputs_embeds=rows,
                position_ids=self._positions(index, coordinates).to(weight.device),
                attention_mask=attended,
                past_key_values=None if keys is None else keys.hub,
                use_cache=keys is not None,
            ).last_hidden_state
        return states.to(embeddings)

    def decoder_layers(self) -> nn.ModuleList:
        """Return its decoder layers in order."""
        layers = self.decoder.layers
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def final_norm(self) -> nn.Module:
        """The norm behind the last of them."""
        norm = self.decoder.norm
        assert isinstance(norm, nn.Module)
        return norm

    def new_cache(self, batch_size: int, max_length: int) -> PreallocatedCache:
        """Return an empty cache for ``batch_size`` rows of at most ``max_length`` positions."""
        return PreallocatedCache(self.num_layers, batch_size, max_length)

    def logits(self, states: Float[Tensor, "*b h"]) -> Float[Tensor, "*b v"]:
        """Apply the model's own language head to last hidden states."""
        logits: Tensor = self.model.get_output_embeddings()(states.to(self._weight))
        return logits.to(states)

    def _positions(self, index: Tensor, coordinates: Tensor | None) -> Tensor:
        """Return the index, or index + (time, row, column) where positions have three axes."""
        if not self.family.counts_axes:
            return index
        # Qwen2-VL (arXiv 2409.12191), section 2.1: a still image has one time, text the same
        # number on all axes
        axes = index.new_zeros(3, *index.shape)
        if coordinates is not None:
            places = coordinates.movedim(-1, 0)[-3:].to(index)
            axes[3 - len(places) :] = places
        return index + axes

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HuggingFaceVLM":
        """Move the weights, but neither cast them nor take them from where they are to stay."""

        # Lightning and .to() cast a whole model through here. What fn does, device and type, is
        # seen on an empty tensor, and of that only the move is done.
        def move(tensor: Tensor) -> Tensor:
            if tensor.is_meta:
                return fn(tensor)
            probe = fn(torch.empty(0, dtype=tensor.dtype, device=tensor.device))
            if self.pinned is not None and probe.device != tensor.device:
                return tensor
            return fn(tensor) if probe.dtype == tensor.dtype else tensor.to(probe.device)

        applied: HuggingFaceVLM = super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        return applied


def _device(name: str) -> torch.device:
    """Return a device; raise a UserError if this machine has no such device."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device must be one of this machine, such as cpu or cuda:0, got {name} ({reason})"
        ) from error
    return device
