"""Group, call, scatter back: what can be done together is, and everybody gets their own answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


def map_groups(
    items: Sequence[Item],
    key_of: Callable[[Item], Key],
    function: Callable[[Key, list[Item]], Iterable[Result]],
) -> list[Result]:
    """Apply a function to the items of each key together.

    Args:
        items: any number of items.
        key_of: what items must share to be done together.
        function: gets a key and its items, in their order; returns one result an item.

    Returns:
        One result an item, in the order of the items.

    Raises:
        ValueError: if the function returns more or fewer results than it got items.
    """
    indices_of: dict[Key, list[int]] = {}
    for index, item in enumerate(items):
        indices_of.setdefault(key_of(item), []).append(index)
    results: dict[int, Result] = {}
    for key, indices in indices_of.items():
        made = function(key, [items[index] for index in indices])
        results.update(zip(indices, made, strict=True))
    return [results[index] for index in range(len(items))]
