"""Recipes turn samples into documents: their contract, captions, questions, mixtures."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, final

import torch

from datamodules.checks import check_at_least, check_probabilities
from datamodules.recipes.illustrated import Illustrated
from datamodules.sample import AnySample, Sample
from pretzel.errors import UserError
from pretzel.sequence.document import Document, caption_document, question_document


class Recipe(ABC):
    """Turns samples into training documents.

    Attributes:
        laws: Module of the laws of all recipes.
    """

    laws: ClassVar[str] = "datamodules.laws"

    @abstractmethod
    def accepts(self, sample: AnySample) -> bool:
        """Tell whether a document can begin with this sample."""

    @abstractmethod
    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return the documents of a sample, perhaps with some that follow it.

        Args:
            sample: The next sample.
            following: The samples behind it, without end; the recipe consumes those that it takes.
            generator: Random numbers of all choices; its stream belongs to this place of the
                training data, so that arms with one seed get the same documents.

        Raises:
            UserError: If a sample lacks what the recipe needs.
        """


class SampleRecipe(Recipe, ABC):
    """Turns one captioned image into training documents."""

    def accepts(self, sample: AnySample) -> bool:
        """Tell whether the sample is a captioned image."""
        return isinstance(sample, Sample)

    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return the documents of one sample; those behind it are not taken.

        Raises:
            UserError: If it is an interleaved document, or lacks what the recipe needs.
        """
        if not isinstance(sample, Sample):
            raise UserError(
                f"recipe {type(self).__name__}: sample {sample.key} is an interleaved document; "
                "use datamodules.AsWritten, alone or in a Mixture"
            )
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

        Raises:
            UserError: If the sample lacks what the recipe needs.
        """


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

    def __init__(self, per_image: int = 1) -> None:
        check_at_least(1, per_image=per_image)
        self.per_image = per_image

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return one document: image, question, answer, question, answer, ..."""
        if not sample.questions:
            raise UserError(f"recipe Questions: sample {sample.key} has no questions")
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
        if not all(weight > 0 for weight in weights):
            raise UserError(f"weights must be positive, not {weights}")
        self.recipes = recipes
        self.weights = weights

    def accepts(self, sample: AnySample) -> bool:
        """Tell whether a recipe accepts the sample."""
        return any(recipe.accepts(sample) for recipe in self.recipes)

    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return the documents of the drawn recipe.

        Raises:
            UserError: If no recipe accepts the sample, or it lacks what the drawn one needs.
        """
        usable = [i for i, recipe in enumerate(self.recipes) if recipe.accepts(sample)]
        if not usable:
            kind = "a captioned image" if isinstance(sample, Sample) else "an interleaved document"
            raise UserError(f"recipe Mixture: sample {sample.key} is {kind}; no recipe accepts it")
        weights = torch.tensor([self.weights[i] for i in usable], dtype=torch.float64)
        cumulative = weights.cumsum(0)
        point = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
        # At the end of the last interval by rounding, the point counts as inside of it.
        index = usable[min(int((cumulative <= point).sum()), len(usable) - 1)]
        return self.recipes[index].draw(sample, following, generator)
