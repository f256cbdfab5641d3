"""Accuracy of the images and answers of conversations of several images, turn by turn."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor
from typing_extensions import override

from callbacks.easy_vqa.judge import Appearance, read_caption
from callbacks.easy_vqa.judged_images import (
    QUESTIONS,
    JudgedImages,
    begin_conversations,
)
from callbacks.evaluation import check_counts
from callbacks.image_generator import ImageGenerator, image_generator
from callbacks.reporting import (
    Stage,
    gather,
    local_batches,
    logged_names,
    show_sheet,
)
from pretzel.generation.answers import MAX_ANSWER_TOKENS
from pretzel.media.integers import to_integers
from pretzel.media.sheet import sheet

Pixels = UInt8[Tensor, "3 height width"]
NUM_SHOWN = 12
"""Conversations on the sheet of pictures."""
COLUMNS = 8
"""Pictures of a row of it, which holds whole conversations."""


@dataclass(frozen=True, kw_only=True)
class JudgedTurn:
    """Colour and shape in one turn of one conversation."""

    wanted: Appearance  # by the caption
    seen: tuple[str, str]  # by the judge, of the image
    answers: tuple[str, str]  # behind the image


def turn_values(conversations: Sequence[Sequence[JudgedTurn]]) -> dict[str, float]:
    """Return the values of :class:`ConversationAccuracy`, names without the stage."""
    shares: dict[str, list[float]] = {}
    for turns in conversations:
        for name, share in turn_shares(turns).items():
            shares.setdefault(name, []).append(share)
    means = {name: sum(own) / len(own) for name, own in shares.items()}
    return {"conversations_n": float(len(conversations))} | means


def turn_shares(turns: Sequence[JudgedTurn]) -> dict[str, float]:
    """Return what is right in one conversation, by the metrics in which it counts."""
    shares = {}
    for t, turn in enumerate(turns):
        name = f"turn{t + 1}"
        shares[f"{name}_right"] = float(turn.seen == turn.wanted)
        answers = zip(turn.answers, turn.seen, strict=True)
        shares[f"{name}_vqa"] = sum(answer == seen for answer, seen in answers) / len(turn.seen)
        if t and turn.wanted != turns[t - 1].seen:
            shares[f"{name}_copied"] = float(turn.seen == turns[t - 1].seen)
    return shares


class ConversationAccuracy(JudgedImages):
    """Hold conversations of several images in one sequence, and judge every image and answer.

    A turn is a caption, its image, and two questions
    (:data:`~callbacks.easy_vqa.judged_images.QUESTIONS`) with greedy answers; the next turn's
    caption follows, and everything before it stays in the caches. Captions are those of evaluation
    samples that name colour and shape; each conversation begins with another one, and goes on with
    those a fixed stride away. Guidance, sampler and denoiser are the module's; the noise is that of
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

    needs_both = True

    def __init__(
        self,
        num_conversations: int = 100,
        num_images: int = 2,
        batch_size: int = 50,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(
            self, num_conversations=num_conversations, num_images=num_images, batch_size=batch_size
        )
        self.num_conversations = num_conversations
        self.num_images = num_images
        self.batch_size = batch_size

    def metric_names(self) -> set[str]:
        """Return the names of each turn's accuracies, and of the number of conversations."""
        turns = range(1, self.num_images + 1)
        names = [f"turn{t}_{what}" for t in turns for what in ("right", "vqa", "copied")]
        return logged_names("conversations_n", *names) - logged_names("turn1_copied")

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        module = image_generator(pl_module, "ConversationAccuracy")
        if module is None:
            return
        folder = trainer.log_dir  # asks all ranks
        spread = self.spread(trainer, stage, self.num_conversations)
        count = len(spread)
        stride = max(count // self.num_images, 1)
        captions = [
            [spread[(i + t * stride) % count].caption for t in range(self.num_images)]
            for i in range(count)
        ]
        rank_zero_info(f"ConversationAccuracy: {count} conversations")
        turns: dict[int, list[JudgedTurn]] = {}
        images: dict[int, list[Pixels]] = {}
        for batch in local_batches(trainer, range(count), self.batch_size):
            keys = [spread[i].key for i in batch]
            judged, shown = self._hold(module, [captions[i] for i in batch], keys)
            turns |= zip(batch, judged, strict=True)
            images |= {i: row for i, row in zip(batch, shown, strict=True) if i < NUM_SHOWN}
        for rank_turns, rank_images in gather(trainer, (turns, images)):
            turns |= rank_turns
            images |= rank_images
        if stage == "test":
            self.sample_results = [
                {
                    "item": spread[i].key,
                    "values": {f"test/{name}": x for name, x in turn_shares(turns[i]).items()},
                    "texts": {
                        "captions": "; ".join(captions[i]),
                        "judge": "; ".join(" ".join(turn.seen) for turn in turns[i]),
                        "answers": "; ".join(" ".join(turn.answers) for turn in turns[i]),
                    },
                }
                for i in range(count)
            ]
        values = turn_values([turns[i] for i in range(count)])
        self.report(trainer, pl_module, stage, values, count)
        first = sorted(images)
        picture = sheet(
            [Image.fromarray(one.permute(1, 2, 0).numpy()) for i in first for one in images[i]],
            [caption for i in first for caption in captions[i]],
            max(COLUMNS // self.num_images, 1) * self.num_images,
        )
        show_sheet(trainer, folder, stage, "conversations", picture)

    def _hold(
        self, module: ImageGenerator, captions: Sequence[Sequence[str]], keys: Sequence[str]
    ) -> tuple[list[list[JudgedTurn]], list[list[Pixels]]]:
        """Hold conversations; return each one's judged turns, and its images."""
        conversations = begin_conversations(module, captions, keys)
        turns: list[list[JudgedTurn]] = [[] for _ in keys]
        images: list[list[Pixels]] = [[] for _ in keys]
        for turn in range(self.num_images):
            wanted = [row[turn] for row in captions]
            conversations.say(wanted)
            pixels = to_integers(conversations.generate())
            answers = []
            for question in QUESTIONS.values():
                conversations.say([question] * len(keys))
                answers.append(conversations.answer(MAX_ANSWER_TOKENS))
            columns = zip(wanted, self.look(pixels), *answers, strict=True)
            for row, (caption, seen, colour, shape) in enumerate(columns):
                answered = (colour.strip(), shape.strip())
                turns[row].append(
                    JudgedTurn(wanted=read_caption(caption), seen=seen, answers=answered)
                )
                images[row].append(pixels[row].cpu())
        return turns, images
