"""Gathering: requests that come within a few milliseconds share one run of the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects items for a few milliseconds and runs them together.

    Lives in one event loop; the work runs in a thread. While a batch runs, the next one fills up,
    so the window delays only requests that find the model idle. An item whose caller has gone away
    (timed out, disconnected) before its batch started is left out.

    Args:
        run: maps a batch to one result an item. If it raises, each item is run alone.
        threads: where ``run`` is called.
        window_s: how long the first item waits for others.
        max_items: most items in a batch.
        observe: called with the size of every batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        threads: Executor,
        *,
        window_s: float,
        max_items: int,
        observe: Callable[[int], None],
    ) -> None:
        self._run = run
        self._threads = threads
        self._window_s = window_s
        self._max_items = max_items
        self._observe = observe
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Return the result of this item, once its batch is done."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        if self._max_items > 1:
            await asyncio.sleep(self._window_s)
        while batch := self._take():
            self._observe(len(batch))
            await self._answer(batch)

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._max_items:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch

    async def _answer(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        loop = asyncio.get_running_loop()
        items = [item for item, _ in batch]
        try:
            results = await loop.run_in_executor(self._threads, self._run, items)
            if len(results) != len(items):
                raise RuntimeError(f"a batch of {len(items)} came back with {len(results)} results")
        except Exception as error:  # whoever caused it shall be the only one to get it
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            for entry in batch:
                if not entry[1].done():
                    await self._answer([entry])
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


def _fail(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
