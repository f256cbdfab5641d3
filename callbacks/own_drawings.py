"""Does a model see in its own drawing what it was asked to draw, and what it did draw?"""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from callbacks.drawing_questions import (
    QUESTIONS,
    Drawer,
    draw_and_ask,
    drawer_of,
    read_and_ask,
)
from callbacks.easy_vqa.judge import COLOURS, SHAPES, Appearance, read_caption
from callbacks.evaluation import check_counts
from callbacks.judged_drawings import JudgedDrawings
from callbacks.protocols import EvaluationSample
from callbacks.reporting import Stage, gather, log_values, tensorboards
from pretzel.generation.conversation import require_pretzel
from pretzel.generation.pictures import to_uint8

NUM_SHOWN = 32
"""Answers that the judge contradicts, shown in TensorBoard at each evaluation."""


@dataclass(frozen=True, kw_only=True)
class AskedOfDrawing:
    """One question that was asked about a drawing.

    Attributes:
        key: Sample that the caption is of.
        attribute: ``colour`` or ``shape``.
        caption: The caption that was drawn.
        wanted: The answer by the caption; None where it leaves it open.
        drawn: The answer by the judge, who sees the drawing.
        answer: The answer given behind caption and drawing.
        contradicted: The answer given with a caption that says otherwise before the drawing.
    """

    key: str
    attribute: str
    caption: str
    wanted: str | None
    drawn: str
    answer: str
    contradicted: str


def agreements(asked: Sequence[AskedOfDrawing]) -> dict[str, float]:
    """Return how often answers agree with the caption and with the judge.

    Groups without questions are left out, their numbers are not.
    """
    hits = {
        "caption": [(a.attribute, a.answer == a.wanted) for a in asked if a.wanted is not None],
        "judge": [(a.attribute, a.answer == a.drawn) for a in asked],
        "contradicted": [(a.attribute, a.contradicted == a.drawn) for a in asked],
    }
    values: dict[str, float] = {}
    for name, group in hits.items():
        parts = {"": [hit for _, hit in group]}
        parts |= {f"_{x}": [hit for own, hit in group if own == x] for x in QUESTIONS}
        values |= {
            f"drawn_vqa_{name}{suffix}": sum(part) / len(part)
            for suffix, part in parts.items()
            if part
        }
        values[f"drawn_vqa_{name}_n"] = float(len(group))
    return values


def contradiction(colour: int, shape: int) -> str:
    """Return a caption that names another colour and another shape."""
    return f"a {COLOURS[(colour + 1) % len(COLOURS)]} {SHAPES[(shape + 1) % len(SHAPES)]}"


class OwnDrawings(JudgedDrawings):
    r"""Let the model draw captions, and ask it about each drawing in the same sequence.

    Captions of the evaluation samples are drawn as
    :meth:`pretzel.training.PretzelModule.draw` does, with the module's guidance, sampler and
    seed, the noise keyed by sample. Behind the image stands a question, ``caption, image,
    question``, in the caches that drawing has left: nothing is decoded and encoded again, and
    nothing is read twice. A drawing has two open questions
    (:data:`~callbacks.drawing_questions.QUESTIONS`), each in a copy of the sequence, so that
    neither sees the other. Answers are greedy and must match exactly. Logs, over colours and
    shapes together and apart (``..._colour``, ``..._shape``),

    - ``<stage>/drawn_vqa_caption``: the answer is what the caption asked for; only questions
      count that the caption settles;
    - ``<stage>/drawn_vqa_judge``: the answer is what was drawn, by the shipped judge of easy-VQA,
      who sees the picture after the module's denoiser, at 8 bits, and never rejects;
    - ``<stage>/drawn_vqa_contradicted``: the latter once more, the drawn latents read behind a
      caption that names another colour and another shape than the judge sees. The two above can
      be had from the caption, which stands before the question, without a look at the image;
      repeating this caption scores 0;
    - ``..._n``: the number of questions of each.

    Chance over 8 colours and 3 shapes is 1/8, 1/3, and 0.229 together. Where documents of training
    are ``caption, image`` and ``image, question, answer``, what is asked for here is neither.

    Where the module has no image-to-text direction (``can_answer`` is false) nothing is logged:
    the metric is then not applicable, not zero. Drawings are dealt out to ranks.

    Args:
        num_images: Captions drawn, over all ranks, spread evenly over those that name a colour or
            a shape; None for all of these.
        batch_size: Captions drawn at a time on each rank; the noise does not depend on it.
        every_n_validations: Draw at every n-th validation of a fit; tests always draw.

    Raises:
        UserError: If a number is below 1, no caption can be judged, or module or datamodule lack
            what is needed; before training.
    """

    names = "a colour or a shape"

    def __init__(
        self,
        num_images: int | None = 200,
        batch_size: int = 50,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(type(self).__name__, num_images=num_images, batch_size=batch_size)
        self.num_images = num_images
        self.batch_size = batch_size

    @staticmethod
    @override
    def can_be_judged(caption: Appearance) -> bool:
        return caption.colour is not None or caption.shape is not None

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        module = drawer_of(pl_module, "OwnDrawings")
        if module is None:
            return
        spread = self.spread(trainer, stage, self.num_images)
        rank_zero_info(f"OwnDrawings: {len(spread)} drawings")
        mine = spread[trainer.global_rank :: trainer.world_size]
        own: list[AskedOfDrawing] = []
        for start in range(0, len(mine), self.batch_size):
            own += self._ask(module, mine[start : start + self.batch_size])
        asked = [a for share in gather(trainer, own) for a in share]
        log_values(pl_module, stage, agreements(asked))
        for board in tensorboards(trainer):
            board.add_text(f"{stage}/own_drawings", _table(asked), trainer.global_step)

    def _ask(self, module: Drawer, samples: Sequence[EvaluationSample]) -> list[AskedOfDrawing]:
        captions = [sample.caption for sample in samples]
        questions = list(QUESTIONS.values())
        drawn, pixels, answers = draw_and_ask(
            module, captions, [sample.key for sample in samples], questions
        )
        verdict = self.judge.to(pixels.device).judge(to_uint8(pixels) / 127.5 - 1)
        seen = {"colour": verdict.colour.tolist(), "shape": verdict.shape.tolist()}
        others = [contradiction(*look) for look in zip(seen["colour"], seen["shape"], strict=True)]
        contradicted = read_and_ask(require_pretzel(module.pretzel), others, drawn, questions)
        names = {"colour": COLOURS, "shape": SHAPES}
        asked = []
        for row, sample in enumerate(samples):
            caption = read_caption(sample.caption)
            wanted = {"colour": caption.colour, "shape": caption.shape}
            for i, attribute in enumerate(QUESTIONS):
                named = wanted[attribute]
                asked.append(
                    AskedOfDrawing(
                        key=sample.key,
                        attribute=attribute,
                        caption=sample.caption,
                        wanted=None if named is None else names[attribute][named],
                        drawn=names[attribute][seen[attribute][row]],
                        answer=answers[row][i].strip(),
                        contradicted=contradicted[row][i].strip(),
                    )
                )
        return asked


def _table(asked: Sequence[AskedOfDrawing]) -> str:
    other = [a for a in asked if a.answer != a.drawn]
    count = min(NUM_SHOWN, len(other))
    shown = [other[i * len(other) // count] for i in range(count)]
    lines = [f"{len(other)} of {len(asked)} answers are not what the judge sees", ""]
    lines += ["| sample | caption | judge | answer |", "|---|---|---|---|"]
    lines += [f"| {a.key} | {a.caption} | {a.drawn} | {a.answer or '(empty)'} |" for a in shown]
    return "\n".join(lines)
