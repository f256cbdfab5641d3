"""Configurations in which the laws test Pretzel's own vision-language model streams.

Apart from those of other parts: importing the classes imports transformers.
"""

from collections.abc import Callable
from functools import partial

from pretzel.testing.tiny_model import small_vlm
from pretzel.vlm.huggingface import HuggingFaceVLM
from pretzel.vlm.smollm2 import SmolLM2
from pretzel.vlm.tiny import TinyVLM

TINY_LLAMA = {
    "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "initializer_range": 0.2,
}  # fmt: skip

CASES: dict[type, list[Callable[[], object]]] = {
    TinyVLM: [small_vlm],
    HuggingFaceVLM: [partial(HuggingFaceVLM, config=TINY_LLAMA)],
}
WITHOUT_CASE: dict[type, str] = {
    SmolLM2: "its weights are not shipped; as a HuggingFaceVLM it is tested with random ones",
}
