"""How a model is made to answer: by writing, or by the likelihood of given answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, final

from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor
from typing_extensions import override

from callbacks.protocols import Answerer, ChoiceScorer, lacks
from pretzel.errors import NothingToMeasure, UserError


class Answering(ABC):
    """Gets answers to questions about images out of a module."""

    no_laws: ClassVar[str] = "any way of answering is right; how good it is is what is measured"

    @abstractmethod
    def describe(self) -> str:
        """Return how answers are had, as a fact beside the figures."""

    @abstractmethod
    def check(self, module: LightningModule) -> None:
        """Refuse a module that cannot answer so.

        Raises:
            NothingToMeasure: If the accuracy is then not applicable.
            UserError: If the module is none that answers.
        """

    def prepare(self, frequent: Callable[[int], list[str]]) -> None:
        """Take in what is needed of the training split; may be called again.

        Args:
            frequent: Returns so many of the most frequent answers of the training split, or all.
        """
        return

    @abstractmethod
    def answer(
        self,
        module: LightningModule,
        images: Float[Tensor, "n ..."],
        questions: list[str],
        keys: list[str],
    ) -> list[str]:
        """Return one answer a question; images with equal keys are the same one."""


@final
class Greedy(Answering):
    """Answers that the module writes, the likeliest token each time."""

    @override
    def describe(self) -> str:
        return "greedy"

    @override
    def check(self, module: LightningModule) -> None:
        if not isinstance(module, Answerer):
            raise lacks("VQAAccuracy", "a module with answer(...) and can_answer", module)

    @override
    def answer(
        self,
        module: LightningModule,
        images: Float[Tensor, "n ..."],
        questions: list[str],
        keys: list[str],
    ) -> list[str]:
        assert isinstance(module, Answerer)
        answers = module.answer(images, questions, keys)
        if len(answers) != len(questions):
            raise UserError(
                f"answer() must return one answer a question: got {len(answers)} for "
                f"{len(questions)}"
            )
        return answers


@final
class AmongChoices(Answering):
    """The likeliest of given answers, whatever the module would have written.

    The log-likelihood of a choice is the sum over its tokens and the one that ends it. Every
    choice is scored for every question, behind an image and a question that are read once; of
    equally likely ones the first counts. A module that cannot score them measures nothing.

    Args:
        choices: The answers (in YAML ``yes`` and ``no`` in quotes); or how many of the most
            frequent answers of the training samples that the blind baseline reads.
        per_token: Divide the sum by the number of tokens, the one that ends it included: otherwise
            short answers are at an advantage.

    Raises:
        UserError: If there is no choice, or an empty one, or one is there twice.
    """

    def __init__(self, choices: list[str] | int, per_token: bool = False) -> None:
        if isinstance(choices, int):
            if choices < 1:
                raise UserError(f"AmongChoices: choices must be at least 1, got {choices}")
        elif not choices or not all(map(str.strip, choices)) or len({*choices}) < len(choices):
            raise UserError(
                f"AmongChoices: choices must be different answers, none empty, got {choices}"
            )
        self.choices = choices
        self.per_token = per_token
        self._texts = [] if isinstance(choices, int) else list(choices)

    @override
    def describe(self) -> str:
        which = f"{len(self._texts)} choices"
        if isinstance(self.choices, int):
            which = f"the {self.choices} most frequent answers"
        return f"likeliest of {which}, {'mean' if self.per_token else 'sum'} over tokens"

    @override
    def check(self, module: LightningModule) -> None:
        if not isinstance(module, ChoiceScorer):
            raise NothingToMeasure(
                f"AmongChoices needs a module with choice_log_probs(...), but "
                f"{type(module).__name__} has none"
            )

    @override
    def prepare(self, frequent: Callable[[int], list[str]]) -> None:
        if isinstance(self.choices, int) and not self._texts:
            self._texts = frequent(self.choices)

    @override
    def answer(
        self,
        module: LightningModule,
        images: Float[Tensor, "n ..."],
        questions: list[str],
        keys: list[str],
    ) -> list[str]:
        assert isinstance(module, ChoiceScorer)
        scores = module.choice_log_probs(
            images, questions, keys, self._texts, per_token=self.per_token
        )
        expected = (len(questions), len(self._texts))
        if scores.shape != expected:
            raise UserError(
                "choice_log_probs() must return one number a question and choice, "
                f"{list(expected)}, got {list(scores.shape)}"
            )
        return [self._texts[index] for index in scores.argmax(dim=1).tolist()]
