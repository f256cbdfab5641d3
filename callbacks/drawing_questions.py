"""Questions about drawings, in the sequence in which they were drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor

from callbacks.protocols import lacks
from pretzel.generation.answers import MAX_ANSWER_TOKENS, text_of
from pretzel.generation.conversation import Trained, require_pretzel
from pretzel.generation.session import Drawn, Session
from pretzel.model import Pretzel
from pretzel.sequence.document import Document, Image, Segment, Text

QUESTIONS = {"colour": "what color is the shape?", "shape": "what shape is in the image?"}
"""What is asked of every drawing: wordings of easy-VQA that give neither colour nor shape away."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of several conversations: a drawing of each, and what was answered behind it.

    Attributes:
        pixels: Pictures in [-1, 1], denoised as the module does.
        answers: Each conversation's answers to the questions, in their order.
    """

    pixels: Float[Tensor, "b 3 height width"]
    answers: list[list[str]]


@runtime_checkable
class Drawer(Trained, Protocol):
    """A module that draws and answers, as :class:`pretzel.training.PretzelModule`."""

    def check_denoiser(self) -> None:
        """Refuse a denoiser that was not trained with the flow."""


def drawer_of(module: LightningModule, owner: str) -> Drawer | None:
    """Return the module; None for one that has no image-to-text.

    Raises:
        UserError: If it is no drawer, naming the callback that needs one.
    """
    can_answer = getattr(module, "can_answer", None)
    if can_answer is False:
        return None
    if can_answer is None or not isinstance(module, Drawer):
        what = "a module with can_answer, check_denoiser() and what it draws with"
        raise lacks(owner, what, module)
    return module


def draw_and_ask(
    module: Drawer,
    captions: Sequence[str],
    keys: Sequence[str],
    questions: Sequence[str],
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> tuple[Drawn, Float[Tensor, "m 3 height width"], list[list[str]]]:
    """Draw captions, and answer each question about each drawing behind it, greedily.

    Args:
        module: The module.
        captions: At least one caption.
        keys: Names the noise of each image.
        questions: Questions, the same of every drawing; none sees another.
        max_tokens: An answer that has not ended by then is cut.

    Returns:
        Drawings as the sequence keeps them; pictures of them in [-1, 1], denoised as the module
        does; the answers to each one's questions.

    Raises:
        UserError: If the module's model is no Pretzel or does not answer, or its denoiser was not
            trained with it.
    """
    module.check_denoiser()
    model = require_pretzel(module.pretzel)
    with torch.inference_mode():
        session = _behind(model, captions, questions, max_tokens)
        z = model.sample_noise(keys, module.seed, "draw")
        drawn = session.draw(z, module.guidance, module.sampler)
        answers = _answers(session, questions, max_tokens)

    documents = [
        Document(key=key, segments=(Text(content=caption), Image()))
        for key, caption in zip(keys, captions, strict=True)
    ]
    log_prob = _last_log_prob(model, documents, [])
    clean = module.denoiser(drawn.x, model.latent.noise, log_prob)
    with torch.inference_mode():
        pixels = model.latent.decode(clean).clamp(-1, 1)
    return drawn, pixels, answers


def read_and_ask(
    model: Pretzel,
    captions: Sequence[str],
    drawn: Drawn,
    questions: Sequence[str],
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> list[list[str]]:
    """Answer questions about drawings as if they were of other captions.

    Args:
        model: A model whose interleaving answers.
        captions: One caption for each drawing.
        drawn: The drawings; they are not encoded again.
        questions: Questions, the same of every drawing.
        max_tokens: An answer that has not ended by then is cut.
    """
    with torch.inference_mode():
        session = _behind(model, captions, questions, max_tokens)
        session.read_image(drawn.u, drawn.x)
        return _answers(session, questions, max_tokens)


def converse(
    module: Drawer,
    captions: Sequence[Sequence[str]],
    keys: Sequence[str],
    questions: Sequence[str],
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> list[Turn]:
    """Hold conversations of several images, each in one sequence.

    A turn is a caption, its drawing, then every question with its greedy answer; all of it stays
    before what follows.

    Args:
        module: The module.
        captions: The captions of each conversation, equally many, at least one.
        keys: Names of the conversations; image t has the noise of ``key#t``.
        questions: What is asked behind every drawing.
        max_tokens: An answer that has not ended by then is cut, and ended.

    Returns:
        The turns, all conversations side by side.

    Raises:
        UserError: As :func:`draw_and_ask`.
    """
    module.check_denoiser()
    model = require_pretzel(module.pretzel)
    num_turns = len(captions[0])
    longest = max(len(model.vlm.encode_text(text)) for text in chain.from_iterable(captions))
    asked = sum(len(model.vlm.encode_text(text)) + max_tokens + 1 for text in questions)
    session = Session(
        model, len(keys), num_turns * (longest + model.latent.num_positions + 2 + asked)
    )
    held: list[list[Segment]] = [[] for _ in keys]
    latents: list[Float[Tensor, "b n d"]] = []
    turns = []
    for t in range(num_turns):
        said = [row[t] for row in captions]
        with torch.inference_mode():
            session.read_text(said)
            z = model.sample_noise([f"{key}#{t}" for key in keys], module.seed, "draw")
            drawn = session.draw(z, module.guidance, module.sampler)
        for segments, caption in zip(held, said, strict=True):
            segments += [Text(content=caption), Image()]
        documents = [
            Document(key=key, segments=tuple(segments))
            for key, segments in zip(keys, held, strict=True)
        ]
        log_prob = _last_log_prob(model, documents, latents)
        clean = module.denoiser(drawn.x, model.latent.noise, log_prob)
        latents.append(drawn.x)
        with torch.inference_mode():
            pixels = model.latent.decode(clean).clamp(-1, 1)
            answers = [_asked_of_all(session, text, max_tokens) for text in questions]
        for question, texts in zip(questions, answers, strict=True):
            for segments, text in zip(held, texts, strict=True):
                segments += [Text(content=question), text]
        by_row = [[text.content for text in row] for row in zip(*answers, strict=True)]
        turns.append(Turn(pixels=pixels, answers=by_row or [[] for _ in keys]))
    return turns


def _last_log_prob(
    model: Pretzel, documents: Sequence[Document], latents: Sequence[Float[Tensor, "b n d"]]
) -> Callable[[Float[Tensor, "b n d"]], Float[Tensor, " b"]]:
    """Return the log-density of the last image of each document, given those before it."""
    before = [x.clone() for x in latents]  # made under inference mode

    def log_prob(point: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        images = torch.stack([*before, point], dim=1)
        return model.score(documents, images.flatten(0, 1)).log_prob.view(images.shape[:2])[:, -1]

    return log_prob


def _asked_of_all(session: Session, question: str, max_tokens: int) -> list[Text]:
    """Ask a question in every row, and return what is answered there."""
    session.read_text([question] * session.num_rows)
    tokens = torch.stack(list(session.write(max_tokens)), dim=1)
    end = session.model.vlm.special.end_of_text
    session.end_text((tokens == end).any(1))
    return [
        Text(content=text_of(session.model, row), role="target", tokens=tuple(_until(row, end)))
        for row in tokens.tolist()
    ]


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


def _behind(
    model: Pretzel, captions: Sequence[str], questions: Sequence[str], max_tokens: int
) -> Session:
    """Return a session that has read captions, with room for what follows."""
    before, behind = (
        max(len(model.vlm.encode_text(text)) for text in texts) for texts in (captions, questions)
    )
    # begin-of-image and end-of-image stand around the image
    room = before + 1 + model.latent.num_positions + 1 + behind + max_tokens
    session = Session(model, len(captions), room)
    session.read_text(captions)
    return session


def _answers(session: Session, questions: Sequence[str], max_tokens: int) -> list[list[str]]:
    """Return each row's answers to each question, every one in a copy of the row."""
    session.flush()  # end-of-image once, not once a question
    m, q = session.num_rows, len(questions)
    rows = torch.arange(m, device=session.model.device).repeat_interleave(q)
    asked = session.select(rows)
    asked.read_text(list(questions) * m)
    tokens = torch.stack(list(asked.write(max_tokens)), dim=1).tolist()
    answers = [text_of(session.model, row) for row in tokens]
    return [answers[i * q : (i + 1) * q] for i in range(m)]
