import pytest
import torch

from pretzel.flow.cache import KVCache
from pretzel.testing.law_case import normal


def cache(batch_size=2, max_length=4):
    return KVCache((2, batch_size, 3, max_length, 5), torch.zeros((), dtype=torch.float64))


def test_layers_see_all_positions_so_far():
    made, new = cache(), normal(2, 2, 3, 4, 5)
    for start, end in ((0, 1), (1, 3), (3, 4)):
        for layer in range(2):
            keys, values = made.write(
                layer, new[layer][..., start:end, :], new[layer][..., start:end, :] + 1
            )
            assert torch.equal(keys, new[layer][..., :end, :])
            assert torch.equal(values, new[layer][..., :end, :] + 1)
        made.commit(end - start)
    assert made.length == 4


def test_nothing_is_reallocated():
    made = cache()
    place = made.entries.data_ptr()
    for _ in range(4):
        keys, _ = made.write(0, torch.ones(2, 3, 1, 5), torch.ones(2, 3, 1, 5))
        assert keys.data_ptr() == place
        made.commit(1)
    assert made.entries.data_ptr() == place


def test_uncommitted_positions_are_written_over():
    made = cache()
    made.write(0, torch.ones(2, 3, 1, 5), torch.ones(2, 3, 1, 5))
    keys, _ = made.write(0, torch.zeros(2, 3, 1, 5), torch.zeros(2, 3, 1, 5))
    assert keys.shape[2] == 1
    assert not keys.any()


def test_selected_rows_go_on_apart():
    made, new = cache(), normal(2, 3, 1, 5)
    made.write(0, new, new)
    made.commit(1)
    chosen = made.select(torch.tensor([1, 0, 1]))
    chosen.write(0, torch.ones(3, 3, 1, 5), torch.ones(3, 3, 1, 5))
    chosen.commit(1)
    assert torch.equal(chosen.entries[0, 0, :, :, 0], new[[1, 0, 1], :, 0])
    assert (made.length, chosen.length) == (1, 2)
    again, _ = made.write(0, 2 * new, 2 * new)
    assert torch.equal(again[:, :, 1:], 2 * new)


def test_a_full_cache_says_so():
    with pytest.raises(ValueError, match="max_length=4 positions, got 5"):
        cache().write(0, torch.ones(2, 3, 5, 5), torch.ones(2, 3, 5, 5))


@pytest.mark.parametrize(
    ("dtype", "stored"), [(torch.float32, torch.bfloat16), (torch.float64, torch.float64)]
)
def test_keys_have_the_dtype_they_are_computed_in(dtype, stored):
    shape = (1, 1, 1, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        made = KVCache(shape, torch.zeros((), dtype=dtype))
    assert made.entries.dtype == stored  # no autocast of float64
    assert KVCache(shape, torch.zeros((), dtype=dtype)).entries.dtype == dtype
    assert KVCache(shape, torch.zeros((), device="meta")).entries.is_meta
