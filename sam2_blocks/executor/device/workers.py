"""Threads that compute with one core each, for work that splits into independent pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """As many threads as torch would use here, each of them computing alone.

    A prompt is too small a piece of work to share between cores: the cores wait for each other
    after every operation, and a core that is busy elsewhere holds up the rest. One prompt a core
    at a time is about twice as fast, and stays so on a busy machine.
    """

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        started = threading.Barrier(self.count + 1)

        def use_one_core() -> None:
            torch.get_num_threads()  # torch sets up a thread on first use, or would do so later
            torch.set_num_threads(1)
            started.wait()

        self._pool = ThreadPoolExecutor(self.count, "sam2-blocks", initializer=use_one_core)
        for _ in range(self.count):
            self._pool.submit(bool)
        started.wait()
        # Torch made the last setting the default of threads to come: put it back.
        torch.set_num_threads(self.count)

    def map_chunks(
        self,
        function: Callable[[Sequence[Item]], Iterable[Result]],
        items: Sequence[Item],
        size: int,
    ) -> list[Result]:
        """Apply a function to consecutive chunks, one chunk a core at a time.

        Args:
            function: maps a chunk to one result an item; called from several threads.
            items: any number of items.
            size: the most items in a chunk; chunks are smaller where that keeps all cores busy.
        """
        size = max(1, min(size, -(-len(items) // self.count)))
        chunks = [items[start : start + size] for start in range(0, len(items), size)]
        return [result for results in self._pool.map(function, chunks) for result in results]
