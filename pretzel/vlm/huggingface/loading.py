"""Load configurations, weights and tokenizers of Hugging Face; refuse in one sentence.

Code from a repository is never executed, weights are safetensors only, and nothing of them is
read before the configuration has been accepted.
"""

from typing import Any, Literal

import torch

from pretzel.errors import UserError
from pretzel.files.pretrained import check_complete, first_line, refused
from pretzel.vlm.huggingface.families import Family, VisionFamily, family_of
from pretzel.vlm.huggingface.untyped import Config, Model, TextTokenizer

DType = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager", "flash_attention_2"]

TEXT_MODELS = ("llama", "qwen2", "qwen3", "qwen2_5_vl_text", "qwen3_vl_text")
"""Decoders that attend to all positions in every layer, with rotary positions."""


def load_config(name: str | None, config: dict[str, Any] | None) -> Config:
    """Return a transformers configuration of a known family: that of ``name``, or one given whole.

    Raises:
        UserError: If not exactly one is given, it cannot be read, or it is of no known family.
    """
    from transformers import AutoConfig

    if (name is None) == (config is None):
        got = "neither" if name is None else f"both name={name} and config={config}"
        raise UserError(f"exactly one of name and config must be given, got {got}")
    if config is not None:
        family_of(config.get("model_type"), "config")
        kind = f"a transformers configuration of {config['model_type']}"
        with refused(f"config must be {kind}"):
            loaded = AutoConfig.for_model(**config)
    else:
        assert name is not None
        with refused(
            "name must be a hub id that can be reached, or a local folder, of a Hugging Face "
            f"model, got {name}"
        ):
            loaded = AutoConfig.from_pretrained(name, trust_remote_code=False)
        family_of(loaded.model_type, f"name={name}")
    _check_decoder(loaded.get_text_config(), name or "config")
    return loaded


def _check_decoder(text: Config, source: str) -> None:
    if text.model_type not in TEXT_MODELS:
        raise UserError(
            f"{source} must have a text model of one of the kinds {', '.join(TEXT_MODELS)}, "
            f"got {text.model_type}"
        )
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UserError(
            f"{source} must attend to all positions in every layer, got layers with "
            f"{', '.join(sorted(kinds - {'full_attention'}))}"
        )


def build_model(
    name: str | None, config: Config, family: Family, dtype: DType, attention: Attention, seed: int
) -> Model:
    """Return the model: the weights of ``name``, or random ones; on the meta device neither.

    Raises:
        UserError: If weights cannot be read or do not fit the configuration, or the
            implementation of attention is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    has_tower = isinstance(family, VisionFamily)
    auto: Model = AutoModelForImageTextToText if has_tower else AutoModelForCausalLM
    options = {"dtype": getattr(torch, dtype), "attn_implementation": attention}
    device = torch.get_default_device()
    with refused("config cannot be built", f"attention={attention} cannot be used"):
        if device.type == "meta":
            return auto.from_config(config, trust_remote_code=False, **options)
        # Random weights come from the CPU: the same on every machine
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            if name is None:
                model = auto.from_config(config, trust_remote_code=False, **options)
            else:
                model = _read(auto, name, config, options)
    return model.to(device)


def _read(auto: Model, name: str, config: Config, options: dict[str, Any]) -> Model:
    with refused(f"name must have safetensors weights that fit its configuration, got {name}"):
        model, info = auto.from_pretrained(
            name,
            config=config,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    check_complete(name, info["missing_keys"], info["mismatched_keys"])
    # Those that the family's class declares to be ignored are not among them
    more = sorted(key for key in info["unexpected_keys"] if not key.endswith("rotary_emb.inv_freq"))
    if more:
        raise UserError(
            f"name must have the weights of its configuration and no others, but {name} has "
            f"{more[0]} ({len(more)} such tensors)"
        )
    return model


def load_tokenizer(source: str) -> TextTokenizer:
    """Return a tokenizer whose special tokens no text can spell, of a hub id or local folder."""
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer
    try:
        return auto.from_pretrained(source, trust_remote_code=False, split_special_tokens=True)
    except Exception as error:  # tokenizers raises bare ones
        raise UserError(
            "tokenizer must be a hub id that can be reached, or a local folder, of a tokenizer, "
            f"got {source} ({first_line(error)})"
        ) from error
