"""Greedy answers of the tiny vision-language model through its own vision tower."""

from collections.abc import Sequence
from itertools import takewhile

import torch

from pretzel.typing import Bool, Float, Int, Tensor
from pretzel.vlm.cache import PreallocatedCache
from pretzel.vlm.tiny.network import TinyNetwork
from pretzel.vlm.tiny.tokenizer import WordPieces

MAX_ANSWER_TOKENS = 8


@torch.inference_mode()
def greedy_answers(
    network: TinyNetwork,
    tokenizer: WordPieces,
    images: Float[Tensor, "m 3 height width"],
    image_of_question: Int[Tensor, " q"],
    questions: Sequence[str],
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> list[str]:
    """Answer questions, at least one, about images in [-1, 1], by the likeliest token each time.

    Each image is read once, however many questions are asked about it. An answer that has not
    ended after ``max_tokens`` is cut.
    """
    special = tokenizer.special
    encoded = [tokenizer.encode(question) for question in questions]
    longest = max(map(len, encoded))
    cache, length = _read(network, tokenizer, images, longest + max_tokens)
    # From here on a row is a question; those about one image begin with the same keys
    cache = cache.select(image_of_question)

    # Padded on the left: the last column is then the end of every question
    tokens = torch.full((len(questions), longest), special.pad, device=images.device)
    for row, question in enumerate(encoded):
        tokens[row, longest - len(question) :] = torch.tensor(question, device=images.device)
    valid = tokens != special.pad
    index = length - 1 + valid.cumsum(1)
    attended = torch.cat((valid.new_ones(len(questions), length), valid), dim=1)
    states = network(network.embed(tokens), index, _causal(attended, longest), cache)

    answers: list[Int[Tensor, "q 1"]] = []
    has_ended = valid.new_zeros(len(questions), 1)
    last = index[:, -1:]
    while True:
        tokens = network.logits(states[:, -1:]).argmax(-1)
        answers.append(tokens)
        has_ended = has_ended | (tokens == special.end_of_text)
        if len(answers) == max_tokens or has_ended.all():
            break
        attended = torch.cat((attended, attended.new_ones(len(questions), 1)), dim=1)
        last = last + 1
        states = network(network.embed(tokens), last, _causal(attended, 1), cache)
    rows = [takewhile(special.end_of_text.__ne__, row) for row in torch.cat(answers, 1).tolist()]
    return [tokenizer.decode(list(row)) for row in rows]


def _read(
    network: TinyNetwork,
    tokenizer: WordPieces,
    images: Float[Tensor, "m 3 height width"],
    extra_length: int,
) -> tuple[PreallocatedCache, int]:
    """Return a cache that has read the images, with ``extra_length`` to spare, and its length."""
    edges = torch.tensor(
        [[tokenizer.special.begin_of_image, tokenizer.special.end_of_image]], device=images.device
    )
    around = network.embed(edges).expand(len(images), -1, -1)
    embeddings = torch.cat((around[:, :1], network.vision(images), around[:, 1:]), dim=1)
    length = embeddings.shape[1]
    cache = PreallocatedCache(network.config.num_layers, len(images), length + extra_length)
    index = torch.arange(length, device=images.device).expand(len(images), -1)
    network(embeddings, index, _causal(torch.ones_like(index, dtype=torch.bool), length), cache)
    return cache, length


def _causal(attended: Bool[Tensor, "b k"], num_queries: int) -> Bool[Tensor, "b 1 l k"]:
    """Return the mask of the last ``num_queries`` positions, each of which attends itself."""
    keys = torch.arange(attended.shape[1], device=attended.device)
    queries = keys[-num_queries:, None]
    return ((keys <= queries) & attended[:, None] | (keys == queries))[:, None]
