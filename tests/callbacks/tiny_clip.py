"""A tiny random CLIP with a tokenizer of single letters."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer


def save_tiny_clip(path: Path, length: int) -> Path:
    """Save one whose texts have at most so many tokens, and return its folder."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = sizes | {
        "vocab_size": len(vocab),
        "max_position_embeddings": length,
        "bos_token_id": vocab["<|startoftext|>"],
        "eos_token_id": vocab["<|endoftext|>"],
        "pad_token_id": vocab["<|endoftext|>"],
    }
    config = CLIPConfig(
        text_config=text,
        vision_config=sizes | {"image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config)
    pictures = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    words = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)
    model.save_pretrained(path)
    CLIPProcessor(image_processor=pictures, tokenizer=words).save_pretrained(path)
    return path
