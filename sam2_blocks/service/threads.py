"""Work in threads, waited for in the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from sam2_blocks.errors import foreign_code
from sam2_blocks.masks.stopping import stopping
from sam2_blocks.service.errors import GivenUpError

Result = TypeVar("Result")
Given = ParamSpec("Given")


class Workers(ThreadPoolExecutor):
    """Threads that know for how long none of them has been free.

    Args:
        count: how many.
        name: of the threads, for people.
    """

    def __init__(self, count: int, name: str) -> None:
        super().__init__(count, name)
        self.name = name
        self._count = count
        self._process = os.getpid()
        self._begun: dict[object, float] = {}

    def submit(
        self, fn: Callable[Given, Result], /, *args: Given.args, **kwargs: Given.kwargs
    ) -> Future[Result]:
        """See `ThreadPoolExecutor.submit`.

        Raises:
            RuntimeError: in a forked child, where these threads and the event loop are not.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                f"the threads {self.name!r} are those of process {self._process}, which forked "
                "this one. Make the service after the fork, or start processes by 'spawn'."
            )
        return super().submit(self._timed, partial(fn, *args, **kwargs))

    def stalled_s(self) -> float:
        """Seconds since any of the threads has taken up something new; 0 if one is free."""
        begun = list(self._begun.values())
        return time.monotonic() - max(begun) if len(begun) >= self._count else 0.0

    def _timed(self, function: Callable[[], Result]) -> Result:
        key = object()
        self._begun[key] = time.monotonic()
        try:
            with foreign_code():  # what is no error would end the event loop that waits for it
                return function()
        finally:
            del self._begun[key]


async def in_thread(threads: Executor, function: Callable[[], Result]) -> Result:
    """Run work in a thread, and wait for it.

    If whoever waits is cancelled, the work goes on to its end by itself.

    Args:
        threads: where to run it.
        function: the work.
    """
    return await asyncio.get_running_loop().run_in_executor(threads, function)


async def while_wanted(threads: Executor, function: Callable[[], Result]) -> Result:
    """Run work in a thread, and wait for it; its long loops end if whoever waits is cancelled.

    Args:
        threads: where to run it.
        function: the work. Its loops call `sam2_blocks.masks.stopping.look_up`, which raises
            `GivenUpError` there once nobody waits any more.
    """
    given_up = threading.Event()

    def check() -> None:
        if given_up.is_set():
            raise GivenUpError("nobody waits for the answer any more.")

    def work() -> Result:
        check()
        with stopping(check):
            return function()

    try:
        return await in_thread(threads, work)
    finally:
        given_up.set()


async def to_the_end(
    threads: ThreadPoolExecutor,
    function: Callable[[], Result],
    *,
    give_up: Callable[[], None] | None = None,
) -> Result:
    """Run work in a thread; if nobody waits any more, return only once it has ended.

    So what is held around this call is held for as long as the work needs it.

    Args:
        threads: where to run it.
        function: the work.
        give_up: called when nobody waits any more, to ask the work to end early.
    """
    work = threads.submit(function)
    done = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        if give_up is not None:
            give_up()
        done.add_done_callback(_drop)
        if not work.cancel():
            await asyncio.wait([done])
        raise


def _drop(done: asyncio.Future[Result]) -> None:
    """Take an error that nobody waits for; else asyncio would log it as lost."""
    if not done.cancelled():
        done.exception()
