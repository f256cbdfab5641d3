"""Image-to-text generation: greedy answers to questions about images."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from pretzel.errors import UserError
from pretzel.interleave.base import StreamCaches, StreamInputs
from pretzel.model import Pretzel, stream_inputs
from pretzel.sequence import Document, Image
from pretzel.typing import Bool, Float, Int, Tensor

MAX_ANSWER_TOKENS = 8


def answer(
    model: Pretzel,
    x: Float[Tensor, "m n d"],
    image_of_question: Int[Tensor, " q"],
    questions: Sequence[str],
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> list[str]:
    """Answer questions about images greedily.

    Each image is read once, however many questions are asked about it: its caches are copied to
    the rows of its questions, which go on from there.

    Args:
        model: A model whose interleaving answers.
        x: Noised latents of the images.
        image_of_question: Image that each question is about.
        questions: Questions.
        max_tokens: An answer that has not ended by then is cut.

    Returns:
        Answers, in the order of the questions.

    Raises:
        UserError: If the interleaving has no image-to-text.
    """
    if not model.interleaving.answers:
        raise UserError(
            f"interleaving must be one that answers questions, got "
            f"{type(model.interleaving).__name__}"
        )
    if not questions:
        return []
    with torch.inference_mode():
        room = max(len(model.vlm.encode_text(question)) for question in questions) + max_tokens
        caches, next_index, place = _read_images(model, x, room)
        return _Turn(model, caches.select(image_of_question), next_index, place).ask(
            questions, max_tokens
        )


def _read_images(
    model: Pretzel, x: Float[Tensor, "m n d"], room: int
) -> tuple[StreamCaches, int, int]:
    documents = [Document(key="", segments=(Image(),))] * len(x)
    packed = model.packer(documents).to(x.device)
    caches = model.interleaving.new_caches(
        model.vlm, model.deep, len(x), packed.tokens.shape[1] + room
    )
    inputs = replace(stream_inputs(packed, model.shallow(x).z), mask=packed.mask)
    model.interleaving(inputs, model.vlm, model.deep, caches)
    return caches, int(packed.index[0, -1]) + 1, int(packed.positions[0, -1, 0]) + 1


class _Turn:
    """One turn of text after a prefix of equal length in all rows."""

    def __init__(self, model: Pretzel, caches: StreamCaches, next_index: int, place: int) -> None:
        self.model = model
        self.caches = caches
        self.next_index = next_index
        self.place = place
        self.prefix = caches.deep.length

    def ask(self, questions: Sequence[str], max_tokens: int) -> list[str]:
        special = self.model.vlm.special
        device = self.model.deep.head.weight.device
        encoded = [self.model.vlm.encode_text(question) for question in questions]
        lengths = torch.tensor([len(tokens) for tokens in encoded], device=device)
        width = int(lengths.max())
        tokens = torch.tensor(
            [[special.pad] * (width - len(row)) + row for row in encoded], device=device
        )
        offset = torch.arange(width, device=device) - (width - lengths[:, None])
        valid = torch.cat(
            [offset.new_ones(len(encoded), self.prefix, dtype=torch.bool), offset >= 0], dim=1
        )
        state = self._advance(tokens, offset.clamp(min=0), valid)

        done = torch.zeros(len(encoded), dtype=torch.bool, device=device)
        generated: list[Tensor] = []
        for step in range(max_tokens):
            token = self.model.vlm.logits(state).argmax(dim=-1)
            token = torch.where(done, special.end_of_text, token)
            generated.append(token)
            done = done | (token == special.end_of_text)
            if done.all() or step == max_tokens - 1:
                break
            valid = torch.cat([valid, valid.new_ones(len(encoded), 1)], dim=1)
            state = self._advance(token[:, None], (lengths + step)[:, None], valid)
        rows = torch.stack(generated, dim=1).tolist()
        return [self._text(row, special.end_of_text) for row in rows]

    def _text(self, tokens: list[int], end: int) -> str:
        stop = tokens.index(end) if end in tokens else len(tokens)
        return self.model.vlm.decode_text(tokens[:stop])

    def _advance(
        self, tokens: Int[Tensor, "q l"], offset: Int[Tensor, "q l"], valid: Bool[Tensor, "q k"]
    ) -> Float[Tensor, "q h"]:
        length = tokens.shape[1]
        keys = valid.shape[1]
        # Query j of the chunk is key (keys - length + j): a lower-right causal mask.
        causal = torch.ones(length, keys, dtype=torch.bool, device=tokens.device).tril(
            keys - length
        )
        own = torch.zeros_like(causal)
        own[:, keys - length :] = torch.eye(length, dtype=torch.bool, device=tokens.device)
        axes = self.model.packer.coordinates.shape[1]
        positions = torch.cat(
            [(self.place + offset)[..., None], offset.new_zeros(*offset.shape, axes)], dim=-1
        )
        inputs = StreamInputs(
            tokens=tokens,
            is_image=torch.zeros_like(tokens, dtype=torch.bool),
            u=self.model.deep.head.weight.new_zeros(*tokens.shape, self.model.latent.channels),
            index=self.next_index + offset,
            positions=positions,
            mask=((causal & valid[:, None]) | own)[:, None],
        )
        streams = self.model.interleaving(inputs, self.model.vlm, self.model.deep, self.caches)
        assert streams.text is not None
        last: Tensor = streams.text[:, -1]
        return last
