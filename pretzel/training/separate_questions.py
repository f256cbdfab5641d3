"""Several questions about one image, answered as if each were asked alone.

The image costs far more positions than a question. Questions of one document therefore share its
image, and are kept apart by mask and index: what each turn computes is exactly what it would
compute in a document of its own.
"""

from dataclasses import dataclass

import torch

from pretzel.sequence.packed_batch import IGNORE, PackedBatch
from pretzel.sequence.special_tokens import SpecialTokens
from pretzel.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class SeparateQuestions:
    """Sequences whose turns, a question with its answer each, do not see each other.

    Attributes:
        index: Absolute index, starting again behind the image in every turn.
        mask: Causal attention to the shared beginning and to the own turn.
        targets: Token that follows each position.
        weights: 1 where that token is supervised, ``context_weight`` where it is other text of
            the same turn, 0 where there is nothing to predict.
    """

    index: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b 1 l l"]
    targets: Int[Tensor, "b l"]
    weights: Float[Tensor, "b l"]


def separate_questions(
    packed: PackedBatch, special: SpecialTokens, context_weight: float
) -> SeparateQuestions:
    """Keep the turns behind an image apart; rows without an image stay as they are.

    A turn ends with end-of-text. Everything up to the end of the last image is shared. Rows are
    padded on the right.
    """
    tokens, length = packed.tokens, packed.tokens.shape[1]
    place = torch.arange(length, device=tokens.device).expand_as(tokens)
    has_image = packed.is_image.any(1, keepdim=True)
    # end-of-image stands right behind the last image position
    shared_end = torch.where(packed.is_image, place + 2, 0).amax(1, keepdim=True)
    shared = (place < shared_end) | ~has_image

    ends = (tokens == special.end_of_text) & packed.is_valid
    begins = torch.roll(ends, 1, dims=1) & (place > 0) | (place == shared_end)
    turn = torch.where(shared, 0, begins.cumsum(1))
    start = torch.where(begins, place, 0).cummax(1).values
    first = packed.index.gather(1, shared_end.clamp(max=length - 1))
    index = torch.where(shared, packed.index, first + place - start)

    same = (turn[:, :, None] == turn[:, None, :]) | shared[:, None, :]
    mask = packed.mask & same[:, None]

    following = torch.roll(tokens, -1, dims=1)
    continues = torch.roll(turn, -1, dims=1) == turn
    is_text = packed.is_valid & ~packed.is_image
    speaks = is_text & torch.roll(is_text, -1, dims=1) & (place < length - 1) & continues
    speaks &= following != special.end_of_image
    supervised = packed.targets != IGNORE
    weights = torch.where(supervised, 1.0, torch.where(speaks, context_weight, 0.0))
    return SeparateQuestions(index=index, mask=mask, targets=following, weights=weights)
