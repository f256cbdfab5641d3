"""Recipes for pretraining a vision-language model on captions and questions."""

from dataclasses import replace
from typing import final

import torch
from typing_extensions import override

from datamodules.checks import check_at_least
from datamodules.recipes.recipe import SampleRecipe, check_sample
from datamodules.sample import AnySample, Sample
from pretzel.sequence.caption_questioner import CaptionQuestioner
from pretzel.sequence.document import Document, Image, Text, question_segments


@final
class Descriptions(SampleRecipe):
    """Image, then its caption and the answers to questions about it as targets.

    Args:
        per_image: Number of questions, chosen at random without repetition; all of them where the
            image has fewer, none where it has none. 0 for the caption alone.
    """

    def __init__(self, per_image: int = 4) -> None:
        check_at_least(0, per_image=per_image)
        self.per_image = per_image

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return one document: image, caption, question, answer, question, answer, ..."""
        caption = Text(content=sample.caption, role="target")
        questions = question_segments(sample.choose_questions(self.per_image, generator))
        return (Document(key=sample.key, segments=(Image(), caption, *questions)),)


@final
class CaptionQuestions(SampleRecipe):
    """Caption, then the answers to questions as targets; no image.

    Args:
        per_image: Number of questions, as for :class:`Descriptions`, at least 1.
        questioner: Asks what the caption answers, for data whose own questions take the image;
            without it, those of the sample are asked.
    """

    def __init__(self, per_image: int = 4, questioner: CaptionQuestioner | None = None) -> None:
        check_at_least(1, per_image=per_image)
        self.per_image = per_image
        self.questioner = questioner

    @override
    def check(self, sample: AnySample) -> None:
        check_sample(self, sample, caption=True, questions=self.questioner is None)

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return one document: caption, question, answer, question, answer, ..."""
        if self.questioner is not None:
            sample = replace(sample, questions=tuple(self.questioner(sample.caption)))
        questions = question_segments(sample.choose_questions(self.per_image, generator))
        return (Document(key=sample.key, segments=(Text(content=sample.caption), *questions)),)
