from __future__ import annotations

import pytest
import torch

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.device.chunks import bucket_size, even_sizes, fill_bucket, map_chunks


def doubling(limit: int, calls: list[int]):
    """A function that runs out of memory for more than `limit` items."""

    def double(chunk):
        calls.append(len(chunk))
        if len(chunk) > limit:
            raise torch.OutOfMemoryError("simulated")
        return [2 * item for item in chunk]

    return double


def test_results_keep_the_order_of_the_items():
    calls: list[int] = []
    assert map_chunks(doubling(9, calls), range(10), 4) == list(range(0, 20, 2))
    assert calls == [4, 4, 2]


def test_out_of_memory_halves_the_chunk_and_goes_on():
    calls: list[int] = []
    assert map_chunks(doubling(3, calls), range(20), 8) == list(range(0, 40, 2))
    assert calls == [8, 4, *[2] * 10]


def test_no_items():
    assert map_chunks(doubling(1, []), [], 4) == []


def test_one_item_that_does_not_fit_is_an_error():
    with pytest.raises(ModelError, match="not enough memory left for one item at a time"):
        map_chunks(doubling(0, []), [1, 2], 2)


def test_batches_have_few_sizes():
    sizes = [bucket_size(count, 12) for count in range(1, 13)]
    assert sizes == [1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]


def test_a_batch_is_filled_with_its_last_item():
    assert fill_bucket("abc", 8) == ["a", "b", "c", "c"]
    assert fill_bucket("abc", 3) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("count", "most", "cores", "sizes"),
    [(0, 4, 2, []), (1, 4, 2, [1]), (2, 64, 2, [1, 1]), (9, 64, 2, [5, 4]), (9, 4, 2, [4, 4, 1])],
)
def test_few_items_are_shared_out_evenly(count, most, cores, sizes):
    assert even_sizes(count, most, cores) == sizes
