"""Threads that compute with one core each, for work that splits into independent pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import TypeVar

import torch

from sam2_blocks.forks import ForkSafeLock, after_fork

Item = TypeVar("Item")
Result = TypeVar("Result")

_starting = ForkSafeLock()

MOST_CORES = 4
"""With more, all of them on one picture after the other were not measured to be slower."""


class Workers:
    """As many threads as torch would use here, each of them computing alone.

    A prompt is too small a piece of work to share between cores: the cores wait for each other
    after every operation, and a core that is busy elsewhere holds up the rest. One prompt a core
    at a time is about twice as fast, and stays so on a busy machine.

    A forked child starts threads of its own on first use. There torch computes with one thread:
    those of its OpenMP pool are gone, too, and it would wait for them for ever.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        with _starting.held():
            self.count = torch.get_num_threads()
        self._started_pool()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        """Start again in a forked child, whose only thread is the one that forked."""
        self._pool = None
        torch.set_num_threads(1)

    def _started_pool(self) -> ThreadPoolExecutor:
        with _starting.held():  # of all: meanwhile the default of threads to come is another one
            if self._pool is None:
                self._pool = self._start()
            return self._pool

    def _start(self) -> ThreadPoolExecutor:
        caller_uses = torch.get_num_threads()
        started = threading.Barrier(self.count + 1)

        def use_one_core() -> None:
            torch.get_num_threads()  # torch sets up a thread on first use, or would do so later
            torch.set_num_threads(1)
            started.wait()

        pool = ThreadPoolExecutor(self.count, "sam2-blocks", initializer=use_one_core)
        for _ in range(self.count):
            pool.submit(bool)
        started.wait()
        # Torch made the last setting the default of threads to come: put it back.
        torch.set_num_threads(caller_uses)
        return pool

    def submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        """Apply a function to one item, as soon as a core is free.

        Args:
            function: called in one of the threads.
            item: what it is given.

        Returns:
            What becomes of it; this does not wait.
        """
        return self._started_pool().submit(function, item)

    def map_chunks(
        self,
        function: Callable[[Sequence[Item]], Iterable[Result]],
        items: Sequence[Item],
        sizes: Sequence[int],
    ) -> list[Result]:
        """Apply a function to consecutive chunks, one chunk a core at a time.

        Args:
            function: maps a chunk to one result an item; called from several threads.
            items: any number of items.
            sizes: how many items each chunk has; see `even_sizes`.
        """
        ends = list(accumulate(sizes))
        chunks = [items[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        return [
            result for results in self._started_pool().map(function, chunks) for result in results
        ]
