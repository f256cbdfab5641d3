"""Accuracy of a model's answers about images that it has generated itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from callbacks.easy_vqa.judge import COLOURS, SHAPES, read_caption
from callbacks.easy_vqa.judged_images import (
    QUESTIONS,
    JudgedImages,
    begin_conversations,
)
from callbacks.evaluation import check_counts
from callbacks.image_generator import ImageGenerator, image_generator
from callbacks.protocols import SampleTexts
from callbacks.reporting import (
    Stage,
    gather,
    local_batches,
    logged_names,
    show_table,
)
from pretzel.generation.answers import MAX_ANSWER_TOKENS
from pretzel.generation.conversation_batch import ConversationBatch
from pretzel.media.integers import to_integers

_TRUTHS = ("caption", "judge", "contradicted")


@dataclass(frozen=True, kw_only=True)
class QuestionAboutImage:
    """One question about a generated image, and its answers."""

    key: str  # of the sample that the caption is of
    attribute: str  # colour or shape
    caption: str
    wanted: str | None  # by the caption; None where it leaves it open
    seen: str  # by the judge, from the image
    answer: str  # given behind caption and image
    contradicted: str  # given with a caption that says otherwise before the image


def agreements(answered: Sequence[QuestionAboutImage]) -> dict[str, float]:
    """Return how often answers agree with the caption and with the judge.

    Groups without questions are left out, their numbers are not.
    """
    groups: dict[str, list[bool]] = {}
    for question in answered:
        for name, hit in hits(question).items():
            groups.setdefault(name, []).append(hit)
    values = {name: sum(group) / len(group) for name, group in groups.items()}
    return values | {
        f"drawn_vqa_{truth}_n": float(len(groups.get(f"drawn_vqa_{truth}", ())))
        for truth in _TRUTHS
    }


def hits(question: QuestionAboutImage) -> dict[str, bool]:
    """Return whether the answers to a question agree, by the metrics in which it counts."""
    hit = {
        "caption": question.answer == question.wanted,
        "judge": question.answer == question.seen,
        "contradicted": question.contradicted == question.seen,
    }
    counted = [t for t in _TRUTHS if t != "caption" or question.wanted is not None]
    suffixes = ("", f"_{question.attribute}")
    return {f"drawn_vqa_{t}{suffix}": hit[t] for t in counted for suffix in suffixes}


def contradiction(colour: str, shape: str) -> str:
    """Return a caption that names another colour and another shape."""
    other_colour = COLOURS[(COLOURS.index(colour) + 1) % len(COLOURS)]
    other_shape = SHAPES[(SHAPES.index(shape) + 1) % len(SHAPES)]
    return f"a {other_colour} {other_shape}"


def answers_apart(
    conversations: ConversationBatch, questions: Sequence[str], max_tokens: int = MAX_ANSWER_TOKENS
) -> list[list[str]]:
    """Return each conversation's answers to each question, every one in a copy of its own."""
    m, q = len(conversations.keys), len(questions)
    rows = torch.arange(m, device=conversations.model.device).repeat_interleave(q)
    copies = conversations.select(rows, [conversations.keys[row] for row in rows.tolist()])
    copies.say(list(questions) * m)
    answers = copies.answer(max_tokens)
    return [answers[i * q : (i + 1) * q] for i in range(m)]


class OwnImages(JudgedImages):
    r"""Let the model generate captions, and ask it about each image in the same sequence.

    Captions of the evaluation samples are generated as
    :meth:`pretzel.training.PretzelModule.generate` does, with the module's guidance, sampler and
    seed, the noise keyed by sample. Behind the image stands a question, ``caption, image,
    question``, in the caches that generation has left: nothing is decoded and encoded again, and
    nothing is read twice. An image has two open questions
    (:data:`~callbacks.easy_vqa.judged_images.QUESTIONS`), each in a copy of the sequence, so that
    neither sees the other. Answers are greedy and must match exactly. Logs, over colours and
    shapes together and apart (``..._colour``, ``..._shape``),

    - ``<stage>/drawn_vqa_caption``: the answer is what the caption asked for; only questions
      count that the caption settles;
    - ``<stage>/drawn_vqa_judge``: the answer is what the image shows, by the shipped judge of
      easy-VQA, who sees it after the module's denoiser, at 8 bits, and never rejects;
    - ``<stage>/drawn_vqa_contradicted``: the latter once more, the generated latents read behind a
      caption that names another colour and another shape than the judge sees. The two above can
      be had from the caption, which stands before the question, without a look at the image;
      repeating this caption scores 0;
    - ``..._n``: the number of questions of each.

    Chance over 8 colours and 3 shapes is 1/8, 1/3, and 0.229 together. Where documents of training
    are ``caption, image`` and ``image, question, answer``, what is asked for here is neither.

    Where the module has no image-to-text direction (``can_answer`` is false) nothing is logged:
    the metric is then not applicable, not zero. Captions are dealt out to ranks.

    Args:
        num_images: Images generated, over all ranks, of captions spread evenly over those that
            name a colour or a shape; None for all of these.
        batch_size: Images generated at a time on each rank; the noise does not depend on it.
        every_n_validations: Evaluate at every n-th validation of a fit; tests always do.

    Raises:
        UserError: If a number is below 1, no caption can be judged, or module or datamodule lack
            what is needed; before training.
    """

    needs_both = False

    def __init__(
        self, num_images: int | None = 200, batch_size: int = 50, every_n_validations: int = 1
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(self, num_images=num_images, batch_size=batch_size)
        self.num_images = num_images
        self.batch_size = batch_size

    def metric_names(self) -> set[str]:
        """Return the names of all agreements, whole and by attribute, and of their counts."""
        suffixes = ("", "_n", *(f"_{attribute}" for attribute in QUESTIONS))
        return logged_names(*(f"drawn_vqa_{t}{suffix}" for t in _TRUTHS for suffix in suffixes))

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        module = image_generator(pl_module, "OwnImages")
        if module is None:
            return
        spread = self.spread(trainer, stage, self.num_images)
        rank_zero_info(f"OwnImages: {len(spread)} images")
        batches = local_batches(trainer, spread, self.batch_size)
        local = [question for batch in batches for question in self._ask(module, batch)]
        answered = [question for rank in gather(trainer, local) for question in rank]
        if stage == "test":
            self.sample_results = [
                {
                    "item": f"{a.key}: {a.attribute}",
                    "group": a.key,  # questions about one image
                    "values": {f"test/{name}": float(hit) for name, hit in hits(a).items()},
                    "texts": {
                        "caption": a.caption,
                        "judge": a.seen,
                        "answer": a.answer,
                        "behind another caption": a.contradicted,
                    },
                }
                for a in answered
            ]
        self.report(trainer, pl_module, stage, agreements(answered), len(spread))
        other = [a for a in answered if a.answer != a.seen]
        show_table(
            trainer,
            f"{stage}/own_images",
            f"{len(other)} of {len(answered)} answers are not what the judge sees",
            ("sample", "caption", "judge", "answer"),
            [(a.key, a.caption, a.seen, a.answer or "(empty)") for a in other],
        )

    def _ask(
        self, module: ImageGenerator, samples: Sequence[SampleTexts]
    ) -> list[QuestionAboutImage]:
        keys = [sample.key for sample in samples]
        questions = list(QUESTIONS.values())
        captions = [sample.caption for sample in samples]
        conversations = begin_conversations(module, [[text] for text in captions], keys)
        conversations.say(captions)
        # The noise of PretzelModule.generate, so that these are the images of other metrics.
        noise = conversations.model.sample_noise(keys, module.seed, "draw")
        pixels = conversations.generate(noise)
        answers = answers_apart(conversations, questions)
        looks = self.look(to_integers(pixels))
        others = [contradiction(*look) for look in looks]
        behind_others = begin_conversations(module, [[text] for text in others], keys)
        behind_others.say(others)
        behind_others.show_latents(conversations.latents[0])  # they are not encoded again
        contradicted = answers_apart(behind_others, questions)
        return [
            QuestionAboutImage(
                key=sample.key,
                attribute=attribute,
                caption=sample.caption,
                wanted=wanted,
                seen=seen,
                answer=answer.strip(),
                contradicted=other.strip(),
            )
            for sample, *columns in zip(samples, looks, answers, contradicted, strict=True)
            for attribute, wanted, seen, answer, other in zip(
                QUESTIONS, read_caption(sample.caption), *columns, strict=True
            )
        ]
