"""Image-to-text generation: answers to questions about images."""

from collections.abc import Sequence

import torch

from pretzel.generation.conversation_batch import ConversationBatch
from pretzel.generation.latents import ImageLatents
from pretzel.generation.writing import require_answers
from pretzel.model import Pretzel
from pretzel.typing import Float, Int, Tensor

MAX_ANSWER_TOKENS = 8


def answer(
    model: Pretzel,
    x: Float[Tensor, "m n d"],
    image_of_question: Int[Tensor, " q"],
    questions: Sequence[str],
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> list[str]:
    """Answer questions about images, greedily; the images are given by their noised latents x.

    Each image is read once, however many questions are asked about it: its caches are copied to
    the rows of its questions, which go on from there. An answer that has not ended after
    ``max_tokens`` is cut.

    Raises:
        UserError: If the interleaving has no image-to-text.
    """
    require_answers(model)
    if not questions:
        return []
    longest = max(len(model.vlm.encode_text(question)) for question in questions)
    images = ConversationBatch(
        model,
        [str(image) for image in range(len(x))],
        # 2 for begin- and end-of-image; the end-of-text of a cut answer is never run
        max_length=2 + model.latent.num_positions + longest + max_tokens,
    )
    with torch.inference_mode():
        images.show_latents(ImageLatents(u=model.shallow(x).z, x=x))
    conversations = images.select(image_of_question, [str(i) for i in range(len(questions))])
    conversations.say(questions)
    return conversations.answer(max_tokens)


def answer_by_key(
    model: Pretzel,
    images: Float[Tensor, "q ..."],
    questions: Sequence[str],
    keys: Sequence[str],
    *,
    seed: int,
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> list[str]:
    """Answer one question about each image in [-1, 1]; otherwise as :func:`answer`.

    Images with equal keys are the same one, which is read once; its noise belongs to the key.
    """
    unique = list(dict.fromkeys(keys))
    first = torch.tensor([keys.index(key) for key in unique], device=images.device)
    number = {key: i for i, key in enumerate(unique)}
    image_of_question = torch.tensor([number[key] for key in keys], device=images.device)
    with torch.inference_mode():
        noise = model.sample_noise(unique, seed, "evaluation")
        x = model.encode(images[first], noise)
    return answer(model, x, image_of_question, questions, max_tokens)
