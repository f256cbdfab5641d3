"""Shared by evaluations that let a model generate easy-VQA captions and judge the images."""

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from callbacks.easy_vqa.judge import Judge, load_judge, read_caption
from callbacks.easy_vqa.judge_features import judge_facts
from callbacks.evaluation import Evaluation
from callbacks.image_generator import ImageGenerator, image_generator
from callbacks.protocols import SampleTexts, Split, evaluation_texts
from callbacks.reporting import Stage, evenly, log_values
from callbacks.sampling_facts import sampling_facts
from pretzel.errors import NothingToMeasure
from pretzel.generation.answers import MAX_ANSWER_TOKENS
from pretzel.generation.conversation_batch import (
    ConversationBatch,
    conversations_with,
    require_pretzel,
)

QUESTIONS = {"colour": "what color is the shape?", "shape": "what shape is in the image?"}
"""Asked about every image: wordings of easy-VQA that give neither colour nor shape away."""


def begin_conversations(
    module: ImageGenerator, captions: Sequence[Sequence[str]], keys: Sequence[str]
) -> ConversationBatch:
    """Return conversations with a module, long enough for captions, images and questions.

    All have equally many captions, each followed by its image, the :data:`QUESTIONS` and answers.

    Raises:
        UserError: If the module's model is no Pretzel, or its denoiser was not trained with it.
    """
    module.check_denoiser()
    model = require_pretzel(module.pretzel)
    longest = max(len(model.vlm.encode_text(text)) for row in captions for text in row)
    answered = sum(
        len(model.vlm.encode_text(text)) + MAX_ANSWER_TOKENS + 1 for text in QUESTIONS.values()
    )
    turn = longest + model.latent.num_positions + 2 + answered  # begin- and end-of-image
    return conversations_with(module, keys, max_length=len(captions[0]) * turn)


class JudgedImages(Evaluation, ABC):
    """An evaluation of images by the shipped judge, of a module that generates and answers."""

    needs_both: ClassVar[bool]  # whether a caption must name colour and shape, not one alone

    def __init__(self, every_n_validations: int) -> None:
        super().__init__(every_n_validations)
        self._judge: Judge | None = None
        self.facts: dict[str, dict[str, Any]] = {}

    def report(
        self,
        trainer: Trainer,
        module: LightningModule,
        stage: Stage,
        values: Mapping[str, float],
        num_samples: int,
    ) -> None:
        """Log values of so many samples, and keep as facts what they depend on."""
        assert self._judge is not None, "check() comes first"
        own = {"n": num_samples, **judge_facts(self._judge), **sampling_facts(trainer, module)}
        names = [name for name in values if not name.endswith("_n")]
        self.facts |= {f"{stage}/{name}": own for name in names}
        log_values(module, stage, values)

    def look(self, pixels: Tensor) -> list[tuple[str, str]]:
        """Return the colour and the shape that the judge sees in 8-bit images."""
        assert self._judge is not None, "check() comes first"
        return self._judge.to(pixels.device).judge(pixels / 127.5 - 1)

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        owner = type(self).__name__
        if image_generator(pl_module, owner) is None:
            rank_zero_info(f"{owner}: not applicable, the module has no image-to-text direction")
            return
        if next(self._usable(trainer, split), None) is None:
            names = f"a colour {'and' if self.needs_both else 'or'} a shape"
            raise NothingToMeasure(
                f"{owner} needs captions that name {names} of easy-VQA, but the {split} "
                "samples have none"
            )
        self._judge = self._judge or load_judge()

    def spread(self, trainer: Trainer, stage: Stage, number: int | None) -> list[SampleTexts]:
        """Return so many samples, spread evenly over those that can be judged; None for all."""
        usable = list(self._usable(trainer, stage))
        return evenly(usable, number or len(usable))

    def _usable(self, trainer: Trainer, split: Split) -> Iterator[SampleTexts]:
        needed = all if self.needs_both else any
        for sample in evaluation_texts(trainer, split, type(self).__name__):
            if needed(read_caption(sample.caption)):
                yield sample
