"""Work in threads, waited for in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(threads: Executor, function: Callable[[], Result]) -> Result:
    """Run work in a thread; if nobody waits any more, it is left alone."""
    return await asyncio.get_running_loop().run_in_executor(threads, function)


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
