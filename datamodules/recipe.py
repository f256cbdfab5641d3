"""What samples become: the contract of recipes, and those for captions and questions."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import final

import torch

from datamodules.illustrated import Illustrated
from datamodules.sample import AnySample, Sample
from pretzel.errors import UserError
from pretzel.sequence.document import Document, caption_document, question_document


class Recipe(ABC):
    """Turns samples into training documents."""

    @abstractmethod
    def accepts(self, sample: AnySample) -> bool:
        """Say whether a document can begin with this sample."""

    @abstractmethod
    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return the documents of a sample, perhaps with some that follow it.

        Args:
            sample: The sample whose turn it is.
            following: Samples that come next, without end. Those that are taken are used up.
            generator: Source of every random choice; its stream belongs to this place of the
                training data, so that arms with one seed see the same documents.

        Raises:
            UserError: If a sample lacks what the recipe needs.
        """


class SampleRecipe(Recipe, ABC):
    """Turns one captioned image into training documents."""

    def accepts(self, sample: AnySample) -> bool:
        """Say whether the sample is a captioned image."""
        return isinstance(sample, Sample)

    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return the documents of one sample; none that follows is taken.

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
            generator: Source of every random choice; its stream belongs to this sample at this
                place of the training data, so that arms with one seed see the same documents.

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
        if not 0 <= drop <= 1:
            raise UserError(f"drop must be a probability in [0, 1], not {drop}")
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
        """Say whether a recipe accepts the sample."""
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
        mark = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
        drawn = usable[min(int((cumulative <= mark).sum()), len(usable) - 1)]
        return self.recipes[drawn].draw(sample, following, generator)
