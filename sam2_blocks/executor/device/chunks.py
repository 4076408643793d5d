"""Work in chunks that fit the device, and in few sizes where each size has to be prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch

from sam2_blocks.errors import ModelError

Item = TypeVar("Item")
Result = TypeVar("Result")


def bucket_size(count: int, most: int) -> int:
    """Round a batch up to a power of two, or to the largest batch there is.

    Args:
        count: items at hand, 1 to ``most``.
        most: items in the largest batch.
    """
    return min(1 << (count - 1).bit_length(), most)


def fill_bucket(items: Sequence[Item], most: int) -> list[Item]:
    """Repeat the last item until the batch has one of the few sizes of `bucket_size`.

    Args:
        items: one or more, at most ``most``.
        most: items in the largest batch.
    """
    return [*items, *[items[-1]] * (bucket_size(len(items), most) - len(items))]


def even_sizes(count: int, most: int, cores: int) -> list[int]:
    """Return sizes of chunks that keep all cores busy.

    Args:
        count: items at hand, any number.
        most: items in the largest chunk, at least 1.
        cores: that take chunks, at least 1.
    """
    size = max(1, min(most, -(-count // cores)))
    return [min(size, count - start) for start in range(0, count, size)]


def map_chunks(
    function: Callable[[Sequence[Item]], Iterable[Result]], items: Sequence[Item], size: int
) -> list[Result]:
    """Apply a function to consecutive chunks; when memory runs out, halve the chunk and go on.

    Args:
        function: maps a chunk to one result an item.
        items: any number of items.
        size: items in a chunk, at least 1.

    Returns:
        The results of all items, in order.

    Raises:
        ModelError: if not even one item fits.

    Example:
        >>> map_chunks(lambda chunk: [len(chunk)] * len(chunk), "abcde", 2)
        [2, 2, 2, 2, 1]
    """
    results: list[Result] = []
    while len(results) < len(items):
        chunk = items[len(results) : len(results) + size]
        try:
            results.extend(function(chunk))
        except torch.OutOfMemoryError as error:
            if len(chunk) == 1:
                raise ModelError(
                    "the device has not enough memory left for one item at a time. Free some, "
                    "or use device='cpu'."
                ) from error
            size = len(chunk) // 2
            torch.cuda.empty_cache()  # does nothing where CUDA is not in use
    return results
