"""Does a conversation of several images show and tell what was asked for, turn by turn?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from callbacks.drawing_questions import QUESTIONS, Drawer, converse, drawer_of
from callbacks.easy_vqa.judge import COLOURS, SHAPES, Appearance, read_caption
from callbacks.evaluation import check_counts
from callbacks.judged_drawings import JudgedDrawings
from callbacks.reporting import Stage, gather, log_values, show_sheet
from pretzel.generation.pictures import pictures, sheet, to_uint8

Look = tuple[str, str]
"""Colour and shape."""
NUM_SHOWN = 12
"""Conversations on the sheet of pictures."""
COLUMNS = 8
"""Pictures of a row of it, which holds whole conversations."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One turn of one conversation.

    Attributes:
        wanted: What the caption asked for.
        drawn: What the judge sees in the picture.
        answers: What was answered behind it, about colour and shape.
    """

    wanted: Look
    drawn: Look
    answers: Look


def turn_values(conversations: Sequence[Sequence[Judged]]) -> dict[str, float]:
    """Return the values of :class:`ConversationAccuracy`, names without the stage."""
    values = {"conversations_n": float(len(conversations))}
    for t, turns in enumerate(zip(*conversations, strict=True)):
        name = f"turn{t + 1}"
        values[f"{name}_right"] = _mean([turn.drawn == turn.wanted for turn in turns])
        values[f"{name}_vqa"] = _mean(
            [
                answer == drawn
                for turn in turns
                for answer, drawn in zip(turn.answers, turn.drawn, strict=True)
            ]
        )
        copied = [
            whole[t].drawn == whole[t - 1].drawn
            for whole in conversations
            if t and whole[t].wanted != whole[t - 1].drawn
        ]
        if copied:
            values[f"{name}_copied"] = _mean(copied)
    return values


class ConversationAccuracy(JudgedDrawings):
    """Hold conversations of several images in one sequence, and judge every picture and answer.

    A turn is a caption, the drawing of it, and two questions
    (:data:`~callbacks.drawing_questions.QUESTIONS`) with greedy answers; the next turn's caption
    follows, and everything before it stays in the caches. Captions are those of evaluation samples
    that name colour and shape; each conversation begins with another one, and goes on with those a
    fixed stride away.
    Guidance, sampler and denoiser are the module's; the noise is that of
    :class:`pretzel.generation.conversation.Conversation` with the sample's key. Logs, for turn
    t = 1, 2, ...,

    - ``<stage>/turn<t>_right``: the picture has the colour and the shape of its own caption, by
      the shipped judge of easy-VQA, which never rejects; chance is 1/24;
    - ``<stage>/turn<t>_copied``: it has colour and shape of the picture before, among those that
      should not (from t = 2 on);
    - ``<stage>/turn<t>_vqa``: the answers are what the judge sees in the last picture, over both
      questions; chance is 0.229;
    - ``<stage>/conversations_n``: the number of conversations.

    The pictures of the first are shown in TensorBoard, and written to ``<log_dir>/conversations``.
    Where the module has no image-to-text direction nothing is logged: the metric is not
    applicable. Conversations are dealt out to ranks.

    Args:
        num_conversations: Conversations, over all ranks.
        num_images: Images of each.
        batch_size: Conversations held side by side on each rank; the noise does not depend on it.
        every_n_validations: Hold them at every n-th validation of a fit; tests always do.

    Raises:
        UserError: If a number is below 1, no caption names colour and shape, or module or
            datamodule lack what is needed; before training.
    """

    names = "a colour and a shape"

    def __init__(
        self,
        num_conversations: int = 100,
        num_images: int = 2,
        batch_size: int = 50,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(
            type(self).__name__,
            num_conversations=num_conversations,
            num_images=num_images,
            batch_size=batch_size,
        )
        self.num_conversations = num_conversations
        self.num_images = num_images
        self.batch_size = batch_size

    @staticmethod
    @override
    def can_be_judged(caption: Appearance) -> bool:
        return caption.complete

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        module = drawer_of(pl_module, "ConversationAccuracy")
        if module is None:
            return
        folder = trainer.log_dir  # asks all ranks
        spread = self.spread(trainer, stage, self.num_conversations)
        count = len(spread)
        stride = max(count // self.num_images, 1)
        told = [
            [spread[(i + t * stride) % count].caption for t in range(self.num_images)]
            for i in range(count)
        ]
        rank_zero_info(f"ConversationAccuracy: {count} conversations")
        mine = range(count)[trainer.global_rank :: trainer.world_size]
        held: dict[int, list[Judged]] = {}
        shown: dict[int, list[UInt8[Tensor, "3 height width"]]] = {}
        for start in range(0, len(mine), self.batch_size):
            chosen = mine[start : start + self.batch_size]
            keys = [spread[i].key for i in chosen]
            turns, images = self._hold(module, [told[i] for i in chosen], keys)
            held |= zip(chosen, turns, strict=True)
            pairs = zip(chosen, images, strict=True)
            shown |= {i: image for i, image in pairs if i < NUM_SHOWN}
        for share, seen in gather(trainer, (held, shown)):
            held |= share
            shown |= seen
        log_values(pl_module, stage, turn_values([held[i] for i in range(count)]))
        first = sorted(shown)
        picture = sheet(
            [one for i in first for one in pictures(torch.stack(shown[i]) / 127.5 - 1)],
            [caption for i in first for caption in told[i]],
            max(COLUMNS // self.num_images, 1) * self.num_images,
        )
        show_sheet(trainer, folder, stage, "conversations", picture)

    def _hold(
        self, module: Drawer, captions: list[list[str]], keys: list[str]
    ) -> tuple[list[list[Judged]], list[list[UInt8[Tensor, "3 height width"]]]]:
        held: list[list[Judged]] = [[] for _ in keys]
        shown: list[list[Tensor]] = [[] for _ in keys]
        for t, turn in enumerate(converse(module, captions, keys, list(QUESTIONS.values()))):
            images = to_uint8(turn.pixels)
            verdict = self.judge.to(images.device).judge(images / 127.5 - 1)
            looks = zip(verdict.colour.tolist(), verdict.shape.tolist(), strict=True)
            for row, (colour, shape) in enumerate(looks):
                wanted = read_caption(captions[row][t])
                assert wanted.colour is not None
                assert wanted.shape is not None
                colour_told, shape_told = turn.answers[row]
                held[row].append(
                    Judged(
                        wanted=(COLOURS[wanted.colour], SHAPES[wanted.shape]),
                        drawn=(COLOURS[colour], SHAPES[shape]),
                        answers=(colour_told.strip(), shape_told.strip()),
                    )
                )
                shown[row].append(images[row].cpu())
        return held, shown


def _mean(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)
