"""Condition on the states of a frozen text encoder from Hugging Face, such as FLAN-T5."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.files.weights import content_hash
from pretzel.flow.context import Context
from pretzel.flow.sizes import check_sizes
from pretzel.tarflow.condition import Condition


class TextEncoder(Condition):
    """Text states of a frozen encoder, padded or cut to one length.

    The null context is that of the empty text. STARFlow attends to all ``length`` positions,
    padding included, so the length is part of the model. The encoder is loaded with the first text.

    Args:
        name: Hub id or local folder with an encoder (or encoder-decoder) and its tokenizer.
        channels: Channels of the states.
        length: Tokens of every text.
        batch_size: Texts encoded at once.

    Raises:
        UserError: If ``length`` or ``batch_size`` is not positive.
    """

    def __init__(self, name: str, channels: int, length: int = 128, batch_size: int = 32) -> None:
        check_sizes(length=length, batch_size=batch_size)
        self.name = name
        self.channels = channels
        self.length = length
        self.batch_size = batch_size

    @cached_property
    def identity(self) -> str:
        """Length and content hash of the weights, which it loads."""
        return f"text-encoder:{self.length}:{content_hash(self._loaded[1].state_dict())}"

    def __call__(self, texts: Sequence[str | None], device: torch.device) -> Context | None:
        """Return states [b, length, channels], float32.

        Raises:
            UserError: If the encoder cannot be loaded or has other channels.
        """
        tokenizer, encoder = self._loaded[0], self._loaded[1].to(device)
        states = []
        with torch.no_grad():
            for start in range(0, len(texts), self.batch_size):
                tokens = tokenizer(
                    [text or "" for text in texts[start : start + self.batch_size]],
                    padding="max_length",
                    truncation=True,
                    max_length=self.length,
                    return_tensors="pt",
                ).to(device)
                output = encoder(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                )
                states.append(output.last_hidden_state.float())
        context = torch.cat(states) if states else torch.zeros(0, self.length, self.channels)
        if context.shape[-1] != self.channels:
            raise UserError(
                f"channels must be those of {self.name}, {context.shape[-1]}, got {self.channels}"
            )
        return context.to(device)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The tokenizer and the encoder."""
        import transformers

        try:
            config = transformers.AutoConfig.from_pretrained(self.name, trust_remote_code=False)
            auto_class: Any = transformers.AutoModel
            # Of an encoder-decoder only the encoder is loaded.
            if type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:
                auto_class = transformers.AutoModelForTextEncoding
            encoder = auto_class.from_pretrained(self.name, config=config, trust_remote_code=False)
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.name, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"name must be a hub id that can be reached, or a local folder, of a text "
                f"encoder and its tokenizer, got {self.name} ({reason})"
            ) from error
        return tokenizer, encoder.eval().requires_grad_(False)
