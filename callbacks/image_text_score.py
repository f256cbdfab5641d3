"""Base of the scores by which models of images and texts say how well they go together."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from transformers import AutoModel, AutoProcessor, PreTrainedModel
from typing_extensions import override

from callbacks.generation_metric import GenerationMetric
from callbacks.hub_models import HubModel, image_facts
from pretzel.errors import UserError
from pretzel.media.integers import to_integers


class ImageTextScore(HubModel, GenerationMetric, ABC):
    """Mean over images of what a model of transformers says of each and its prompt.

    Prompts longer than the text model are truncated, the end token kept; ``<name>_truncated`` is
    their fraction, logged when not 0.

    Args:
        model: Local folder or hub id of a model with its processor.

    Attributes:
        prefix: Beginning of the metric's name; the last part of ``model`` follows.
        classes: Classes of transformers that are such models.
        padding: How the processor pads texts, as these models have been trained.
    """

    prefix: ClassVar[str]
    loaded_by = (AutoModel, AutoProcessor)
    classes: ClassVar[tuple[type[PreTrainedModel], ...]]
    padding: ClassVar[bool | str] = True

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.reset()

    @property
    @override
    def name(self) -> str:
        return f"{self.prefix}_{super().name}"

    @abstractmethod
    def scores(self, output: Any) -> dict[str, Float[Tensor, " n"]]:  # noqa: ANN401
        """Return scores of each image and its prompt, by what follows the metric's name.

        Args:
            output: Of the model: ``image_embeds`` and ``text_embeds`` of norm 1, n of each.
        """

    @override
    def _use(self, network: Any, processor: Any) -> None:
        if not isinstance(network, self.classes):
            raise UserError(
                f"{type(self).__name__}: model {self.model!r} must be a {self.kind}, got a "
                f"{type(network).__name__}"
            )

    @property
    def _max_length(self) -> int:
        length: int = self._network.config.text_config.max_position_embeddings
        return length

    @override
    def describe(self) -> str:
        assert self._network is not None, "prepare() comes first"
        return f"{self.name}: {self.model}, state {self._weights}, its processor"

    @override
    def facts(self) -> dict[str, dict[str, Any]]:
        if self._network is None:
            return {}
        own = image_facts(super().name, self._weights, self._processor.image_processor)
        return dict.fromkeys(self._scores, own)

    @override
    def accepts(self, prompt: str) -> bool:
        return bool(prompt.strip())

    @override
    def reset(self) -> None:
        self._scores: dict[str, list[float]] = {}
        self._n = self._num_truncated = 0

    @override
    @torch.no_grad()
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        assert self._network is not None, "prepare() comes first"
        texts = list(prompts)
        whole = self._processor.tokenizer(texts, verbose=False)["input_ids"]
        self._num_truncated += sum(len(ids) > self._max_length for ids in whole)
        # torchmetrics cuts token lists, and so loses the end token that CLIP pools at; the
        # tokenizer keeps it
        inputs = self._processor(
            text=texts,
            images=list(to_integers(images).cpu()),
            return_tensors="pt",
            padding=self.padding,
            truncation=True,
            max_length=self._max_length,
        )
        for name, values in self.scores(self._network(**inputs.to(self._network.device))).items():
            self._scores.setdefault(f"{self.name}{name}", []).extend(values.tolist())
        self._n += len(texts)

    @override
    def image_scores(self) -> dict[str, list[float]]:
        return dict(self._scores)

    @override
    def compute(self) -> dict[str, float]:
        if self._n == 0:
            raise UserError(f"{self.name} needs at least 1 generated image, got 0")
        values = {name: sum(own) / self._n for name, own in self._scores.items()}
        values[f"{self.name}_n"] = float(self._n)
        if self._num_truncated:
            values[f"{self.name}_truncated"] = self._num_truncated / self._n
            rank_zero_warn(
                f"{self.name}: {self._num_truncated} of {self._n} prompts are longer than the "
                f"{self._max_length} tokens of {self.model} and were truncated"
            )
        return values


def cosines(output: Any) -> Float[Tensor, " n"]:  # noqa: ANN401
    """Return the cosine of each image and its text; a model's embeddings are of norm 1."""
    product: Tensor = output.image_embeds * output.text_embeds
    return product.sum(dim=-1)
