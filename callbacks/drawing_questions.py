"""Questions about drawings, in the sequence in which they were drawn."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pretzel.model import Pretzel
from pretzel.sampling.generate import Trained, require_pretzel
from pretzel.sampling.session import Drawn, Session
from pretzel.sampling.text import MAX_ANSWER_TOKENS, text_of
from pretzel.sequence import Document, Image, Text


@runtime_checkable
class Drawer(Trained, Protocol):
    """A module that draws and answers, as :class:`pretzel.module.PretzelModule`."""

    def check_denoiser(self) -> None:
        """Refuse a denoiser that was not trained with the flow."""


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

    def log_prob(point: Tensor) -> Tensor:
        documents = [
            Document(key=key, segments=(Text(content=caption), Image()))
            for key, caption in zip(keys, captions, strict=True)
        ]
        return model.score(documents, point).log_prob

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
    rows = torch.arange(m, device=session.model.like.device).repeat_interleave(q)
    asked = session.select(rows)
    asked.read_text(list(questions) * m)
    tokens = torch.stack(list(asked.write(max_tokens)), dim=1).tolist()
    answers = [text_of(session.model, row) for row in tokens]
    return [answers[i * q : (i + 1) * q] for i in range(m)]
