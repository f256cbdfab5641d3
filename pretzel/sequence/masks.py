"""Attention masks, and attention under them.

Equal-length and right-padded rows need no mask at all. Padded rows behind a cache, and several
documents packed into one row, do: dense on a CPU, by blocks on a GPU, where blocks in which no
query may attend a key are skipped (FlexAttention, arXiv 2412.05496).
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from pretzel.typing import Float, Int, Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    Mask = Tensor | BlockMask
    """True where a query may attend a key, [b, 1, l, k]; or the same by blocks."""
else:
    Mask = object  # importing FlexAttention costs most of a second, and few need it


def document_mask(document: Int[Tensor, "b l"]) -> Mask:
    """Return the mask of rows that are packed with several documents, each causal by itself.

    It is dense on a CPU, a block mask on a GPU. Padding may be a document of its own.
    """
    if document.is_cuda:
        from torch.nn.attention.flex_attention import create_block_mask

        def may_attend(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (document[row, query] == document[row, key]) & (query >= key)

        rows, length = document.shape
        return create_block_mask(may_attend, rows, None, length, length, device=document.device)
    return same_document(document) & causal_mask(document.shape[1], 0, document.device)


def same_document(document: Int[Tensor, "b l"]) -> Tensor:
    """Return which pairs of positions belong to the same document, [b, 1, l, l]."""
    return document[:, None, :, None] == document[:, None, None, :]


def causal_mask(length: int, before: int, device: torch.device) -> Tensor:
    """Return the lower-right causal mask [1, 1, l, before + l] of positions behind a cache."""
    mask = torch.ones(length, before + length, dtype=torch.bool, device=device)
    return mask.tril_(before)[None, None]


def attend(
    query: Float[Tensor, "b heads l e"],
    key: Float[Tensor, "b kv k e"],
    value: Float[Tensor, "b kv k e"],
    mask: Mask | None,
    scale: float | None = None,
) -> Float[Tensor, "b heads l e"]:
    """Return scaled dot-product attention; without a mask causal, or of one query to all keys.

    ``scale`` multiplies the logits; None for 1 / sqrt(e).
    """
    is_grouped = key.shape[1] != query.shape[1]
    if mask is not None and not isinstance(mask, Tensor):
        flex_attention = _flex_attention(compiled=query.is_cuda)
        out: Tensor = flex_attention(
            query, key, value, block_mask=mask, scale=scale, enable_gqa=is_grouped
        )
        return out
    is_causal = mask is None
    if query.shape[2] == 1:  # behind a cache it may attend every key; is_causal aligns it with one
        is_causal = False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=is_causal, scale=scale, enable_gqa=is_grouped
    )


@cache
def _flex_attention(*, compiled: bool) -> Any:  # noqa: ANN401
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention
