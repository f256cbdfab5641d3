"""Models that answer yes-or-no questions about images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from typing_extensions import override

from callbacks.hub_models import HubModel
from callbacks.metric_part import MetricPart
from pretzel.errors import UserError
from pretzel.media.integers import to_integers

REQUEST = "Answer yes or no."
"""Follows each question."""
_NUM_AT_A_TIME = 8
"""Questions that are read together, each with the image."""


class YesNoJudge(MetricPart, ABC):
    """Answers yes-or-no questions about images."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its part of the metric's name: lower-case letters, digits and dashes."""

    @abstractmethod
    def says_yes(
        self, image: Float[Tensor, "3 height width"], questions: Sequence[str]
    ) -> list[bool]:
        """Return whether the answer to each question about an image in [-1, 1] is yes."""


@final
class TransformersJudge(HubModel, YesNoJudge):
    """A model of images and texts of transformers, such as Qwen2.5-VL or LLaVA.

    It is asked by its own chat template, some questions at a time, "Answer yes or no." behind each.
    The answer is yes if the next token is likelier to be the first of "yes" or "Yes" than that of
    "no" or "No": nothing is written, and no answer is neither.

    Args:
        model: Local folder or hub id of such a model with its processor, for example
            ``Qwen/Qwen2.5-VL-7B-Instruct``.
    """

    kind = "model of images and texts"
    loaded_by = (AutoModelForImageTextToText, AutoProcessor)

    @override
    def _use(self, network: Any, processor: Any) -> None:
        if not processor.chat_template:
            raise UserError(f"TransformersJudge: model {self.model!r} must have a chat template")
        self._yes, self._no = (
            [processor.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in words]
            for words in (("yes", "Yes"), ("no", "No"))
        )
        # padding behind a question is what no causal model sees; its place is looked up below
        processor.tokenizer.padding_side = "right"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        if set(self._yes) & set(self._no):
            raise UserError(
                f"TransformersJudge: model {self.model!r} must tell yes from no by one token"
            )

    @override
    def facts(self) -> dict[str, Any]:
        return {"judge": self.model, "weights": self._weights, "request": REQUEST}

    @override
    def says_yes(
        self, image: Float[Tensor, "3 height width"], questions: Sequence[str]
    ) -> list[bool]:
        answers: list[bool] = (self.log_odds(image, questions) > 0).tolist()
        return answers

    @torch.no_grad()
    def log_odds(
        self, image: Float[Tensor, "3 height width"], questions: Sequence[str]
    ) -> Float[Tensor, " questions"]:
        """Return how much likelier yes is than no as the answer to each question, in nats."""
        picture = to_integers(image[None])[0].cpu()
        texts = [self._asked(question) for question in questions]
        odds = [torch.zeros(0)]
        for first in range(0, len(texts), _NUM_AT_A_TIME):
            part = texts[first : first + _NUM_AT_A_TIME]
            inputs = self._processor(
                text=part, images=[[picture]] * len(part), return_tensors="pt", padding=True
            ).to(self._network.device)
            last = inputs["attention_mask"].sum(dim=1) - 1
            logits = self._network(**inputs).logits
            logits = logits[torch.arange(len(part), device=logits.device), last].float()
            yes, no = (logits[:, ids].logsumexp(dim=1) for ids in (self._yes, self._no))
            odds.append((yes - no).cpu())
        return torch.cat(odds)

    def _asked(self, question: str) -> str:
        asked = [{"type": "image"}, {"type": "text", "text": f"{question} {REQUEST}"}]
        text: str = self._processor.apply_chat_template(
            [{"role": "user", "content": asked}], add_generation_prompt=True
        )
        return text
