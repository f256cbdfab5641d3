"""Masks in the forms that transformers' implementations of attention read."""

import torch

from pretzel.errors import UserError
from pretzel.typing import Bool, Float, Tensor


def causal(rows: Float[Tensor, "b l h"]) -> Bool[Tensor, "..."]:
    """Return the mask with which a model attends causally over equal-length or right-padded rows.

    Without any mask, transformers takes jumps in the position ids for packed sequences, and would
    cut a row at padding or a dropped caption. "All are valid" stops it from guessing, and leaves
    it the fused causal kernels.
    """
    length = rows.shape[1]
    if rows.is_meta:  # it could not look whether all are valid
        return torch.ones(length, length, dtype=torch.bool, device=rows.device).tril()[None, None]
    return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)


def for_attention(mask: Bool[Tensor, "b 1 l k"], attention: str, dtype: torch.dtype) -> Tensor:
    """Return a mask, true where a query may attend a key, as an ``attention`` of dtype reads it.

    Raises:
        UserError: If the implementation cannot apply the mask.
    """
    if attention == "sdpa":
        return mask
    if attention == "eager":
        # Finite, so that a query that may attend nothing gives a finite state
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    return _valid_keys(mask)


def _valid_keys(mask: Bool[Tensor, "b 1 l k"]) -> Bool[Tensor, "b k"]:
    """Return which keys count, if the mask is causal over rows that are padded on the left."""
    length, keys = mask.shape[-2:]
    valid = mask[:, 0, -1]
    order = torch.arange(keys, device=mask.device)
    past = order <= order[keys - length :, None]
    is_query = valid[:, keys - length :, None]
    expected = (past & valid[:, None]) & is_query
    if not torch.equal(mask[:, 0] & is_query, expected):
        raise UserError(
            "attention=flash_attention_2 applies causal masks over rows padded on the left only, "
            "and this mask is another one; use attention=sdpa"
        )
    return valid
