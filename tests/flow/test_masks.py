"""Packed rows: several documents in one, each as if it stood alone."""

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from pretzel.flow import CausalTransformer
from pretzel.flow.positions import AxialRotary
from pretzel.sequence.masks import attend, causal_mask, document_mask
from pretzel.testing import perturb
from pretzel.testing.law_case import normal

LENGTHS = (3, 5, 2)


def packed():
    """Three documents in one row: inputs, numbers and positions that start anew in each."""
    h = normal(1, sum(LENGTHS), 16)
    document = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))[None]
    places = torch.cat([torch.arange(length) for length in LENGTHS])[:, None]
    return h, document, places


def network(device="cpu"):
    made = CausalTransformer(2, width=16, head_dim=8, num_kv_heads=1).double()
    perturb(made)
    return made.to(device)


def test_packed_documents_see_nothing_of_each_other():
    h, document, places = packed()
    made, rotary = network(), AxialRotary(head_dim=8, num_axes=1).double()
    together = made(h, rotary(places, h.dtype), document_mask(document))
    alone = [
        made(part, rotary(torch.arange(part.shape[1])[:, None], h.dtype))
        for part in h.split(LENGTHS, dim=1)
    ]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:flex_attention called without")  # as on a GPU it is not
def test_a_mask_by_blocks_says_the_same():
    _, document, _ = packed()
    query, key = normal(1, 4, 10, 8, key="q").float(), normal(1, 2, 10, 8, key="k").float()

    def seen(row, head, q, k):
        return (document[row, q] == document[row, k]) & (q >= k)

    by_blocks = create_block_mask(seen, 1, None, 10, 10, device="cpu")
    dense = document_mask(document)
    with torch.no_grad():
        actual, expected = attend(query, key, key, by_blocks), attend(query, key, key, dense)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_behind_a_cache_the_mask_is_aligned_to_the_lower_right():
    mask = causal_mask(2, 3, torch.device("cpu"))[0, 0]
    assert mask.tolist() == [[True, True, True, True, False], [True] * 5]


@pytest.mark.gpu
def test_packed_rows_on_a_gpu_are_masked_by_blocks():
    h, document, places = packed()
    mask = document_mask(document.cuda())
    assert isinstance(mask, BlockMask)
    rotary = AxialRotary(head_dim=8, num_axes=1)
    expected = network()(h, rotary(places, h.dtype), document_mask(document))
    with torch.no_grad():
        rotation = rotary.cuda()(places.cuda(), torch.float32)
        actual = network("cuda").float()(h.cuda().float(), rotation, mask)
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=0, atol=1e-3)
