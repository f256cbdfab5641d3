"""What a sample becomes: the contract of a recipe and the recipes for captions and questions."""

from abc import ABC, abstractmethod
from typing import final

import torch

from datamodules.sample import Sample
from pretzel.errors import UserError
from pretzel.sequence import Document, caption_document, question_document


class Recipe(ABC):
    """Turns one sample into training documents."""

    @abstractmethod
    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return the documents of one sample; each ``Image`` segment stands for its image.

        Args:
            sample: The decoded sample.
            generator: Source of every random choice; its stream belongs to this sample at this
                place of the training data, so that arms with one seed see the same documents.

        Raises:
            UserError: If the sample lacks what the recipe needs.
        """


@final
class Captions(Recipe):
    """Text-to-image: caption, then image.

    Args:
        drop: Probability that the caption is dropped (the null condition of guidance).
    """

    def __init__(self, drop: float = 0.1) -> None:
        if not 0 <= drop <= 1:
            raise UserError(f"drop must be a probability in [0, 1], not {drop}")
        self.drop = drop

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return one document: caption, image."""
        dropped = torch.rand((), generator=generator).item() < self.drop
        return (caption_document(sample.caption, key=sample.key, dropped=dropped),)


@final
class Questions(Recipe):
    """Image-to-text: image, then questions with their answers as targets.

    Args:
        per_image: Number of questions in a document, chosen at random without repetition; all of
            them where the image has fewer.
    """

    def __init__(self, per_image: int = 1) -> None:
        if per_image < 1:
            raise UserError(f"per_image must be at least 1, not {per_image}")
        self.per_image = per_image

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return one document: image, question, answer, question, answer, ..."""
        if not sample.questions:
            raise UserError(f"recipe Questions: sample {sample.key} has no questions")
        order = torch.randperm(len(sample.questions), generator=generator).tolist()
        pairs = [sample.questions[index] for index in order[: self.per_image]]
        return (question_document(pairs, key=sample.key),)


@final
class Mixture(Recipe):
    """Each sample goes to one recipe, drawn with the given weights.

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
        self._cumulative = torch.tensor(weights, dtype=torch.float64).cumsum(0)

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return the documents of the drawn recipe."""
        draw = torch.rand((), generator=generator, dtype=torch.float64) * self._cumulative[-1]
        index = min(int((self._cumulative <= draw).sum()), len(self.recipes) - 1)
        return self.recipes[index].documents(sample, generator)
