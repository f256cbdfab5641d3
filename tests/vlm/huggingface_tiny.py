"""Every family of Hugging Face models from a tiny configuration, and a tokenizer in a folder."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pretzel.vlm.huggingface import HuggingFaceVLM

VOCAB, WIDTH, LAYERS = 64, 32, 3
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 64,
    "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
    "initializer_range": 0.2,
}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": 32, "initializer_range": 0.2}
SMALL_IMAGES = VISION | {
    "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 4,
}  # fmt: skip


def _mrope(*sections: int) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sections)}


CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **TEXT},
    "qwen2": {"model_type": "qwen2", **TEXT},
    "qwen3": {"model_type": "qwen3", "head_dim": 8, **TEXT},
    "qwen2_5_vl": {
        "model_type": "qwen2_5_vl",
        "initializer_range": 0.2,
        "text_config": TEXT | {"rope_parameters": _mrope(1, 1, 2)},
        "vision_config": VISION | {
            "depth": 2, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4,
            "window_size": 16, "fullatt_block_indexes": [1],
        },
    },
    "qwen3_vl": {
        "model_type": "qwen3_vl",
        "initializer_range": 0.2,
        "text_config": TEXT | {"head_dim": 8, "rope_parameters": _mrope(2, 1, 1)},
        "vision_config": VISION | {
            "depth": 1, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4,
            "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
        },
    },
    "smolvlm": {
        "model_type": "smolvlm",
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": SMALL_IMAGES,
        "scale_factor": 2,
    },
    "idefics3": {
        "model_type": "idefics3",
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": SMALL_IMAGES,
        "scale_factor": 2,
    },
    "llava": {
        "model_type": "llava",
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": SMALL_IMAGES | {"model_type": "clip_vision_model"},
    },
}  # fmt: skip
ANY_SIZE = ["qwen2_5_vl", "qwen3_vl"]
LIMITS = {"min_pixels": 64, "max_pixels": 4096}  # tiny images, as they are
SEEING = [name for name, config in CONFIGS.items() if "vision_config" in config]

WORDS = [
    "a",
    "red",
    "blue",
    "circle",
    "triangle",
    "shape",
    "what",
    "color",
    "is",
    "the",
    "it",
    "small",
    "very",
    "why",
    "present",
]
SPECIAL = ["<|endoftext|>", "<|im_end|>", "<unk>"]
VISION_TOKENS = ["<|vision_start|>", "<|vision_end|>"]


def tiny_vlm(family: str, **options: Any) -> HuggingFaceVLM:
    limits = LIMITS if family in ANY_SIZE else {}
    return HuggingFaceVLM(config=CONFIGS[family], **{**limits, **options})


def save_tokenizer(folder: Path, *, vision: bool = False) -> None:
    """A word-level tokenizer whose special tokens are those of the Qwen family."""
    special = SPECIAL + VISION_TOKENS * vision
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS, "?", ",", "<", ">", "|"])}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.decoder = decoders.WordPiece()
    PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        unk_token="<unk>", additional_special_tokens=VISION_TOKENS * vision,
    ).save_pretrained(folder)  # fmt: skip


def save_vlm(folder: Path, family: str, *, vision_tokens: bool = False) -> HuggingFaceVLM:
    """Write a tiny model with its tokenizer; return it as it was made from its configuration."""
    made = tiny_vlm(family)
    made.model.save_pretrained(folder)
    if family in ANY_SIZE:
        (folder / "preprocessor_config.json").write_text(json.dumps(LIMITS))
    save_tokenizer(folder, vision=vision_tokens)
    return made
