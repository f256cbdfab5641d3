"""Models that answer yes-or-no questions about images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from typing_extensions import override

from callbacks.feature_extractors import fingerprint
from callbacks.hub_models import last_part, load_model
from pretzel.errors import UserError
from pretzel.media.integers import to_integers

REQUEST = "Answer yes or no."
"""Follows each question."""


class YesNoJudge(ABC):
    """Answers yes-or-no questions about images.

    Weights are loaded by :meth:`prepare`, before training and only on the rank that measures.
    """

    no_laws: ClassVar[str] = "any model may be asked; metrics are named after it"

    @property
    @abstractmethod
    def name(self) -> str:
        """Its part of the metric's name: lower-case letters, digits and dashes."""

    @abstractmethod
    def prepare(self, device: torch.device) -> None:
        """Load what is needed and move it to ``device``; may be called again.

        Raises:
            UserError: If it cannot be had.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return ``judge`` and ``weights``, a hash: if one differs values cannot be compared."""

    @abstractmethod
    def says_yes(
        self, image: Float[Tensor, "3 height width"], questions: Sequence[str]
    ) -> list[bool]:
        """Return whether the answer to each question about an image in [-1, 1] is yes."""


@final
class TransformersJudge(YesNoJudge):
    """A model of images and texts of transformers, such as Qwen2.5-VL or LLaVA.

    It is asked by its own chat template, one question at a time, "Answer yes or no." behind it.
    The answer is yes if the next token is likelier to be the first of "yes" or "Yes" than that of
    "no" or "No": nothing is written, and no answer is neither.

    Args:
        model: Local folder or hub id of such a model with its processor, for example
            ``Qwen/Qwen2.5-VL-7B-Instruct``.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._name = last_part(type(self).__name__, model)
        self._network: Any = None
        self._processor: Any = None

    @property
    @override
    def name(self) -> str:
        return self._name

    @override
    def prepare(self, device: torch.device) -> None:
        if self._network is None:
            owner, kind = type(self).__name__, "model of images and texts"
            self._network, self._processor = load_model(
                owner, kind, self.model, AutoModelForImageTextToText, AutoProcessor
            )
            if not self._processor.chat_template:
                raise UserError(f"{owner}: model {self.model!r} must have a chat template")
            self._yes, self._no = (self._first(*words) for words in (("yes", "Yes"), ("no", "No")))
            if set(self._yes) & set(self._no):
                raise UserError(f"{owner}: model {self.model!r} must tell yes from no by one token")
            self._weights = fingerprint(self._network)
        self._network.to(device)

    def _first(self, *words: str) -> list[int]:
        tokenizer = self._processor.tokenizer
        return [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]

    @override
    def facts(self) -> dict[str, Any]:
        return {"judge": self.model, "weights": self._weights, "request": REQUEST}

    @override
    @torch.no_grad()
    def says_yes(
        self, image: Float[Tensor, "3 height width"], questions: Sequence[str]
    ) -> list[bool]:
        picture = to_integers(image[None])[0].cpu()
        answers = []
        for question in questions:
            asked = [{"type": "image"}, {"type": "text", "text": f"{question} {REQUEST}"}]
            text = self._processor.apply_chat_template(
                [{"role": "user", "content": asked}], add_generation_prompt=True
            )
            inputs = self._processor(text=[text], images=[picture], return_tensors="pt")
            logits = self._network(**inputs.to(self._network.device)).logits[0, -1]
            answers.append(bool(logits[self._yes].logsumexp(0) > logits[self._no].logsumexp(0)))
        return answers
