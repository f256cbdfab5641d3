"""Recipes turn samples into documents: their contract, captions, questions, mixtures."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, final

import torch

from datamodules.checks import check_at_least, check_probabilities
from datamodules.recipes.illustrated import Illustrated
from datamodules.sample import AnySample, Sample, Unusable
from datamodules.weighted_choice import weighted_choice
from pretzel.errors import UserError
from pretzel.sequence.document import Document, caption_document, question_document


class Recipe(ABC):
    """Turns samples into training documents.

    Attributes:
        laws: Module of the laws of all recipes.
    """

    laws: ClassVar[str] = "datamodules.laws"

    @abstractmethod
    def check(self, sample: AnySample) -> None:
        """Refuse a sample with which no document can begin.

        Raises:
            Unusable: With what the sample lacks.
        """

    @final
    def accepts(self, sample: AnySample) -> bool:
        """Tell whether a document can begin with this sample."""
        try:
            self.check(sample)
        except Unusable:
            return False
        return True

    @abstractmethod
    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return the documents of a sample, perhaps with some that follow it.

        Args:
            sample: The next sample, one that :meth:`check` accepts.
            following: Accepted samples behind it, without end; the recipe consumes those that it
                takes.
            generator: Random numbers of all choices; its stream belongs to this place of the
                training data, so that arms with one seed get the same documents.

        Raises:
            Unusable: If the recipe does not accept the sample.
        """


class SampleRecipe(Recipe, ABC):
    """Turns one image with its texts into training documents.

    Attributes:
        needs_caption: Whether samples without a caption are refused.
        needs_questions: Whether samples without questions are refused.
    """

    needs_caption: ClassVar[bool] = True
    needs_questions: ClassVar[bool] = False

    def check(self, sample: AnySample) -> None:
        """Refuse interleaved documents, and samples without what the recipe needs."""
        check_sample(self, sample, caption=self.needs_caption, questions=self.needs_questions)

    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return the documents of one sample; those behind it are not taken."""
        self.check(sample)
        assert isinstance(sample, Sample)
        return tuple(
            Illustrated(document=document, pixels=(sample.pixels,) * document.num_images)
            for document in self.documents(sample, generator)
        )

    @abstractmethod
    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return the documents of one sample; each ``Image`` segment stands for its image.

        Args:
            sample: The decoded sample.
            generator: Random numbers of all choices, as for :meth:`draw`.
        """


def check_sample(recipe: Recipe, sample: AnySample, *, caption: bool, questions: bool) -> None:
    """Refuse interleaved documents, and samples without a caption or questions where needed.

    Raises:
        Unusable: With what the sample lacks.
    """
    name = type(recipe).__name__
    if not isinstance(sample, Sample):
        raise Unusable(
            "other kind",
            f"recipe {name}: an interleaved document; use datamodules.AsWritten, alone or in a "
            "Mixture",
        )
    if caption and not sample.caption:
        raise Unusable("no caption", f"recipe {name} needs a caption")
    if questions and not sample.questions:
        raise Unusable("no questions", f"recipe {name} needs questions")


@final
class Captions(SampleRecipe):
    """Text-to-image: caption, then image.

    Args:
        drop: Probability that the caption is dropped (the null condition of guidance).
    """

    def __init__(self, drop: float = 0.1) -> None:
        check_probabilities(drop=drop)
        self.drop = drop

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return one document: caption, image."""
        dropped = torch.rand((), generator=generator).item() < self.drop
        return (caption_document(sample.caption, key=sample.key, dropped=dropped),)


@final
class Questions(SampleRecipe):
    """Image-to-text: image, then questions with their answers as targets.

    Args:
        per_image: Number of questions in a document, chosen at random without repetition; all of
            them where the image has fewer.
    """

    needs_caption = False
    needs_questions = True

    def __init__(self, per_image: int = 1) -> None:
        check_at_least(1, per_image=per_image)
        self.per_image = per_image

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return one document: image, question, answer, question, answer, ..."""
        pairs = sample.choose_questions(self.per_image, generator)
        return (question_document(pairs, key=sample.key),)


@final
class Mixture(Recipe):
    """Each sample goes to one recipe, drawn with the given weights among those that accept it.

    Args:
        recipes: The recipes to choose from.
        weights: One positive number for each recipe; they need not sum to one.
    """

    def __init__(self, recipes: list[Recipe], weights: list[float]) -> None:
        if not recipes or len(recipes) != len(weights):
            raise UserError(
                f"weights must hold one number for each recipe: "
                f"{len(weights)} weights for {len(recipes)} recipes"
            )
        if not all(0 < weight < math.inf for weight in weights):
            raise UserError(f"weights must be positive and finite, not {weights}")
        self.recipes = recipes
        self.weights = weights

    def check(self, sample: AnySample) -> None:
        """Refuse a sample that none of the recipes accepts."""
        faults = []
        for recipe in self.recipes:
            try:
                recipe.check(sample)
            except Unusable as fault:
                faults.append(fault)
            else:
                return
        reasons = {fault.reason for fault in faults}
        details = ", ".join(str(fault) for fault in faults)
        raise Unusable(reasons.pop() if len(reasons) == 1 else "no recipe", details)

    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return the documents of the drawn recipe."""
        self.check(sample)
        usable = [i for i, recipe in enumerate(self.recipes) if recipe.accepts(sample)]
        index = usable[weighted_choice([self.weights[i] for i in usable], generator)]
        return self.recipes[index].draw(sample, following, generator)
