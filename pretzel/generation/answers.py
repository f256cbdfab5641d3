"""Image-to-text generation: answers to questions about images."""

from collections.abc import Sequence

import torch

from pretzel.generation.session import Session, require_answers
from pretzel.generation.token_choice import GREEDY, Writing
from pretzel.model import Pretzel
from pretzel.typing import Float, Int, Tensor

MAX_ANSWER_TOKENS = 8


def answer(
    model: Pretzel,
    x: Float[Tensor, "m n d"],
    image_of_question: Int[Tensor, " q"],
    questions: Sequence[str],
    max_tokens: int = MAX_ANSWER_TOKENS,
    writing: Writing = GREEDY,
    *,
    keys: Sequence[str] | None = None,
    seed: int = 0,
) -> list[str]:
    """Answer questions about images.

    Each image is read once, however many questions are asked about it: its caches are copied to
    the rows of its questions, which go on from there.

    Args:
        model: A model whose interleaving answers.
        x: Noised latents of the images.
        image_of_question: Image that each question is about.
        questions: Questions.
        max_tokens: An answer that has not ended by then is cut.
        writing: How tokens are chosen.
        keys: Names of the questions, which tell apart what is drawn at random; None for their
            numbers.
        seed: Seed of what is drawn at random.

    Returns:
        Answers, in the order of the questions.

    Raises:
        UserError: If the interleaving has no image-to-text.
    """
    require_answers(model)
    if not questions:
        return []
    with torch.inference_mode():
        longest = max(len(model.vlm.encode_text(question)) for question in questions)
        room = 2 + model.latent.num_positions + longest + max_tokens
        images = Session(model, len(x), room, seed=seed)
        images.read_image(model.shallow(x).z, x)
        session = images.select(
            image_of_question, keys if keys is not None else [str(i) for i in range(len(questions))]
        )
        session.read_text(questions)
        written = torch.stack(list(session.write(max_tokens, writing)), dim=1)
    return [text_of(model, row) for row in written.tolist()]


def answer_by_key(
    model: Pretzel,
    images: Float[Tensor, "q 3 height width"],
    questions: Sequence[str],
    keys: Sequence[str],
    *,
    seed: int,
) -> list[str]:
    """Answer one question about each image, greedily; an image is read once.

    Args:
        model: A model whose interleaving answers.
        images: Images in [-1, 1], one for each question.
        questions: Questions.
        keys: Sample keys of the images, equal for questions about the same one; their noise is
            keyed by them.
        seed: Seed of that noise.

    Raises:
        UserError: If the interleaving has no image-to-text.
    """
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    unique = sorted(first, key=lambda key: first[key])
    rank = {key: i for i, key in enumerate(unique)}
    rows = torch.tensor([first[key] for key in unique], device=images.device)
    of_question = torch.tensor([rank[key] for key in keys], device=images.device)
    with torch.inference_mode():
        noise = model.sample_noise(unique, seed, "evaluation")
        x = model.encode(images[rows], noise)
        return answer(model, x, of_question, questions)


def text_of(model: Pretzel, tokens: Sequence[int]) -> str:
    """Return the text of tokens up to end-of-text."""
    end = model.vlm.special.end_of_text
    stop = tokens.index(end) if end in tokens else len(tokens)
    return model.vlm.decode_text(tokens[:stop])
