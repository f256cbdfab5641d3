"""A real T5 encoder with its tokenizer, a few thousand weights, in a folder."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

CHANNELS = 16
WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "circle", "triangle"]


def save_tiny_t5(folder: Path) -> T5EncoderModel:
    tokens = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS), d_model=CHANNELS, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    encoder = T5EncoderModel(config).eval()
    encoder.save_pretrained(folder)
    return encoder
