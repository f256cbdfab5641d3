"""How a model is made to answer: by writing, or by the likelihood of given answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, final

from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor
from typing_extensions import override

from callbacks.protocols import Answerer, ChoiceScorer, lacks
from callbacks.vqa.multiple_choice import LETTERS
from callbacks.vqa.questions import AnsweredQuestion
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
        asked: Sequence[AnsweredQuestion],
    ) -> list[str]:
        """Return one answer a question; images of questions with equal keys are the same one.

        Args:
            module: Answers.
            images: That of each question.
            asked: The questions, with their choices where they have some; none is answered yet.
        """


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
        asked: Sequence[AnsweredQuestion],
    ) -> list[str]:
        assert isinstance(module, Answerer)
        answers = module.answer(images, [one.question for one in asked], [one.key for one in asked])
        if len(answers) != len(asked):
            raise UserError(
                f"answer() must return one answer a question: got {len(answers)} for {len(asked)}"
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
        return _likeliest_of(which, per_token=self.per_token)

    @override
    def check(self, module: LightningModule) -> None:
        _require_scorer(self, module)

    @override
    def prepare(self, frequent: Callable[[int], list[str]]) -> None:
        if isinstance(self.choices, int) and not self._texts:
            self._texts = frequent(self.choices)

    @override
    def answer(
        self,
        module: LightningModule,
        images: Float[Tensor, "n ..."],
        asked: Sequence[AnsweredQuestion],
    ) -> list[str]:
        places = _likeliest(module, images, asked, self._texts, per_token=self.per_token)
        return [self._texts[place] for place in places]


@final
class OwnChoices(Answering):
    """The likeliest of each question's own choices, as SEED-Bench compares them.

    The log-likelihood is that of :class:`AmongChoices`. Of texts, questions with the same choices
    are scored together, others one after the other.

    Args:
        letters: Compare the letters of the choices, A, B, ..., where the question itself lists
            them, as MMBench's do; otherwise their texts.
        per_token: Divide the sum by the number of tokens, the one that ends it included.
    """

    def __init__(self, letters: bool = False, per_token: bool = False) -> None:
        self.letters = letters
        self.per_token = per_token

    @override
    def describe(self) -> str:
        which = f"the {'letters' if self.letters else 'texts'} of each question's choices"
        return _likeliest_of(which, per_token=self.per_token)

    @override
    def check(self, module: LightningModule) -> None:
        _require_scorer(self, module)

    @override
    def answer(
        self,
        module: LightningModule,
        images: Float[Tensor, "n ..."],
        asked: Sequence[AnsweredQuestion],
    ) -> list[str]:
        rows: dict[tuple[str, ...], list[int]] = {}
        for row, one in enumerate(asked):
            if not one.choices:
                raise UserError(
                    "OwnChoices: questions must have choices, as those of MMBench and SEED-Bench, "
                    f"but {one.question!r:.80} of sample {one.key!r} has none"
                )
            texts = tuple(LETTERS[: len(one.choices)]) if self.letters else one.choices
            rows.setdefault(texts, []).append(row)
        answers = [""] * len(asked)
        for texts, own in rows.items():
            together = [asked[row] for row in own]
            places = _likeliest(module, images[own], together, texts, per_token=self.per_token)
            for row, place in zip(own, places, strict=True):
                answers[row] = texts[place]
        return answers


def _likeliest_of(which: str, *, per_token: bool) -> str:
    return f"likeliest of {which}, {'mean' if per_token else 'sum'} over tokens"


def _require_scorer(answering: Answering, module: LightningModule) -> None:
    if not isinstance(module, ChoiceScorer):
        raise NothingToMeasure(
            f"{type(answering).__name__} needs a module with choice_log_probs(...), but "
            f"{type(module).__name__} has none"
        )


def _likeliest(
    module: LightningModule,
    images: Float[Tensor, "n ..."],
    asked: Sequence[AnsweredQuestion],
    texts: Sequence[str],
    *,
    per_token: bool,
) -> list[int]:
    """Return the place of the likeliest text as the answer to each question, the first of equals.

    Raises:
        UserError: If the module returns numbers of another shape.
    """
    assert isinstance(module, ChoiceScorer)
    questions, keys = [one.question for one in asked], [one.key for one in asked]
    scores = module.choice_log_probs(images, questions, keys, [*texts], per_token=per_token)
    expected = (len(asked), len(texts))
    if scores.shape != expected:
        raise UserError(
            "choice_log_probs() must return one number a question and choice, "
            f"{list(expected)}, got {list(scores.shape)}"
        )
    places: list[int] = scores.argmax(dim=1).tolist()
    return places
