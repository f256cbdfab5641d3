"""CLIPScore with any CLIP of transformers."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics.multimodal.clip_score import CLIPScore as TorchmetricsCLIPScore
from transformers import AutoModel, AutoProcessor, CLIPModel
from typing_extensions import override

from callbacks.feature_extractors import fingerprint
from callbacks.generation_metric import GenerationMetric
from pretzel.errors import UserError
from pretzel.generation.pictures import to_uint8


class CLIPScore(GenerationMetric):
    """CLIPScore of torchmetrics: mean of 100 cos(image, prompt), clipped below at 0.

    (Hessel et al. 2021, arXiv:2104.08718, with the factor 100 that torchmetrics uses.) The name
    says which CLIP: ``clip_score_<last part of model>``. Prompts longer than the text model are
    truncated, the end token kept; ``<name>_truncated`` is their fraction, logged when not 0.

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
        self._metric: TorchmetricsCLIPScore | None = None
        self._processor: _Processor | None = None

    @override
    def prepare(self, device: torch.device) -> None:
        if self._metric is None:
            model, processor = self._load()
            self._processor = processor
            loaded: Any = lambda: (model, processor)  # noqa: E731
            self._metric = TorchmetricsCLIPScore(loaded, sync_on_compute=False)
        self._metric.to(device)

    def _load(self) -> tuple["_PooledCLIP", "_Processor"]:
        try:
            model = AutoModel.from_pretrained(self.model)
            processor = AutoProcessor.from_pretrained(self.model)  # type: ignore[no-untyped-call]
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
        pooled = _PooledCLIP(model).requires_grad_(False).eval()
        text: Any = model.config.text_config
        return pooled, _Processor(processor, text.max_position_embeddings)

    @override
    def describe(self) -> str:
        assert self._metric is not None, "prepare() comes first"
        return f"{self.name}: {self.model}, state {fingerprint(self._metric.model)}, its processor"

    @override
    def reset(self) -> None:
        assert self._metric is not None, "prepare() comes first"
        assert self._processor is not None
        self._metric.reset()
        self._processor.num_truncated = 0

    @override
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        assert self._metric is not None, "prepare() comes first"
        self._metric.update(to_uint8(images), list(prompts))

    @override
    def compute(self) -> dict[str, float]:
        assert self._metric is not None, "prepare() comes first"
        assert self._processor is not None
        n = int(self._metric.n_samples)
        if n == 0:
            raise UserError(f"{self.name} needs at least 1 generated image, got 0")
        values = {self.name: float(self._metric.compute()), f"{self.name}_n": float(n)}
        if self._processor.num_truncated:
            values[f"{self.name}_truncated"] = self._processor.num_truncated / n
            rank_zero_warn(
                f"{self.name}: {self._processor.num_truncated} of {n} prompts are longer than the "
                f"{self._processor.max_length} tokens of {self.model} and were truncated"
            )
        return values


class _PooledCLIP(nn.Module):
    """A CLIP as torchmetrics 1.9 expects it: features are tensors, not transformers 5 outputs."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip: Any = clip
        self.config = clip.config

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return _pooled(self.clip.get_image_features(pixel_values=pixel_values))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return _pooled(
            self.clip.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
        )


def _pooled(output: Any) -> Tensor:  # noqa: ANN401
    if isinstance(output, Tensor):
        return output
    pooled: Tensor = output.pooler_output
    return pooled


class _Processor:
    """A processor that truncates long prompts itself, keeping their end token, and counts them.

    torchmetrics cuts token lists instead, and so loses the end token that CLIP pools at.
    """

    def __init__(self, processor: Any, max_length: int) -> None:  # noqa: ANN401
        self.processor = processor
        self.max_length = max_length
        self.num_truncated = 0

    def __call__(
        self,
        *,
        text: list[str] | None = None,
        images: list[Tensor] | None = None,
        return_tensors: str,
        padding: bool,
    ) -> Any:  # noqa: ANN401
        if text is None:
            return self.processor(images=images, return_tensors=return_tensors)
        self.num_truncated += sum(
            len(ids) > self.max_length
            for ids in self.processor.tokenizer(text, verbose=False)["input_ids"]
        )
        return self.processor(
            text=text,
            return_tensors=return_tensors,
            padding=padding,
            truncation=True,
            max_length=self.max_length,
        )
