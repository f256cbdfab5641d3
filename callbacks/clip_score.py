"""CLIPScore with any CLIP of transformers."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from transformers import AutoModel, AutoProcessor, CLIPModel
from typing_extensions import override

from callbacks.feature_extractors import fingerprint
from callbacks.generation_metric import GenerationMetric
from pretzel.errors import UserError
from pretzel.media.integers import to_integers


class CLIPScore(GenerationMetric):
    """CLIPScore as torchmetrics computes it: mean of 100 cos(image, prompt), clipped below at 0.

    (Hessel et al. 2021, arXiv 2104.08718, section 3, with the factor 100.) The name says which
    CLIP: ``clip_score_<last part of model>``. Prompts longer than the text model are truncated, the
    end token kept; ``<name>_truncated`` is their fraction, logged when not 0.

    Args:
        model: Local folder or hub id of a CLIP with its processor, for example
            ``openai/clip-vit-base-patch16``.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        slug = re.sub(r"[^a-z0-9-]+", "-", Path(model).name.lower()).strip("-")
        if not slug:
            raise UserError(f"CLIPScore: model must be a folder or a hub id, got {model!r}")
        self.name = f"clip_score_{slug}"
        self._clip: Any = None
        self._processor: Any = None
        self.reset()

    @override
    def prepare(self, device: torch.device) -> None:
        if self._clip is None:
            self._load()
        self._clip.to(device)

    def _load(self) -> None:
        try:
            model = AutoModel.from_pretrained(self.model, trust_remote_code=False)
            processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                self.model, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"CLIPScore: model {self.model!r} cannot be loaded ({reason}). Give the local "
                "folder of a CLIP saved with its processor, or a hub id where the hub is reachable"
            ) from error
        if not isinstance(model, CLIPModel):
            raise UserError(
                f"CLIPScore: model {self.model!r} must be a CLIP, got a {type(model).__name__}"
            )
        model.train(False)
        self._clip, self._processor = model.requires_grad_(False), processor

    @property
    def _max_length(self) -> int:
        length: int = self._clip.config.text_config.max_position_embeddings
        return length

    @override
    def names(self) -> set[str]:
        return {self.name, f"{self.name}_n", f"{self.name}_truncated"}

    @override
    def describe(self) -> str:
        assert self._clip is not None, "prepare() comes first"
        return f"{self.name}: {self.model}, state {fingerprint(self._clip)}, its processor"

    @override
    def accepts(self, prompt: str) -> bool:
        return bool(prompt.strip())

    @override
    def reset(self) -> None:
        self._total = torch.zeros(())
        self._n = self._num_truncated = 0

    @override
    @torch.no_grad()
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        assert self._clip is not None, "prepare() comes first"
        texts = list(prompts)
        whole = self._processor.tokenizer(texts, verbose=False)["input_ids"]
        self._num_truncated += sum(len(ids) > self._max_length for ids in whole)
        # torchmetrics cuts token lists, and so loses the end token that CLIP pools at; the
        # tokenizer keeps it
        inputs = self._processor(
            text=texts,
            images=list(to_integers(images).cpu()),
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self._max_length,
        )
        output = self._clip(**inputs.to(self._clip.device))
        cosine = (output.image_embeds * output.text_embeds).sum(dim=-1)  # both of norm 1
        self._total = self._total + 100 * cosine.sum().cpu()
        self._n += len(texts)

    @override
    def compute(self) -> dict[str, float]:
        if self._n == 0:
            raise UserError(f"{self.name} needs at least 1 generated image, got 0")
        score = max(float(self._total) / self._n, 0.0)
        values = {self.name: score, f"{self.name}_n": float(self._n)}
        if self._num_truncated:
            values[f"{self.name}_truncated"] = self._num_truncated / self._n
            rank_zero_warn(
                f"{self.name}: {self._num_truncated} of {self._n} prompts are longer than the "
                f"{self._max_length} tokens of {self.model} and were truncated"
            )
        return values
