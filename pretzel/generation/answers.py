"""Image-to-text generation: answers to questions about images."""

from collections.abc import Sequence

import torch

from pretzel.errors import UserError
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
    return _asked(model, x, image_of_question, questions, max_tokens).answer(max_tokens)


def choice_log_probs(
    model: Pretzel,
    x: Float[Tensor, "m n d"],
    image_of_question: Int[Tensor, " q"],
    questions: Sequence[str],
    choices: Sequence[str],
    *,
    per_token: bool = False,
) -> Float[Tensor, "q c"]:
    """Return the log-probability of each choice as the answer to each question, in nats.

    It is the sum over its tokens and end-of-text; ``per_token`` their mean. Images and questions
    are read once, as by :func:`answer`.

    Raises:
        UserError: If the interleaving has no image-to-text, or a choice has no token.
    """
    require_answers(model)
    lengths = [len(model.vlm.encode_text(choice)) for choice in choices]
    if not lengths or 0 in lengths:
        raise UserError(f"choices must be texts of one token or more, got {list(choices)}")
    if not questions:
        return x.new_zeros(0, len(choices))
    asked = _asked(model, x, image_of_question, questions, max(lengths))
    # a choice at a time: in as many rows as there are questions
    scores = torch.stack([asked.log_prob(choice) for choice in choices], dim=1)
    return scores / (scores.new_tensor(lengths) + 1) if per_token else scores


def _asked(
    model: Pretzel,
    x: Float[Tensor, "m n d"],
    image_of_question: Int[Tensor, " q"],
    questions: Sequence[str],
    max_tokens: int,
) -> ConversationBatch:
    """Return a conversation a question, in which it has been asked about its image."""
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
    return conversations


def keyed_latents(
    model: Pretzel, images: Float[Tensor, "q ..."], keys: Sequence[str], *, seed: int
) -> tuple[Float[Tensor, "m n d"], Int[Tensor, " q"]]:
    """Return noised latents of images in [-1, 1], one a key, and whose each image is.

    Images with equal keys are the same one; its noise belongs to the key.
    """
    unique = list(dict.fromkeys(keys))
    first = torch.tensor([keys.index(key) for key in unique], device=images.device)
    number = {key: i for i, key in enumerate(unique)}
    image_of_question = torch.tensor([number[key] for key in keys], device=images.device)
    with torch.inference_mode():
        noise = model.sample_noise(unique, seed, "evaluation")
        return model.encode(images[first], noise), image_of_question


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
    return answer(model, *keyed_latents(model, images, keys, seed=seed), questions, max_tokens)
