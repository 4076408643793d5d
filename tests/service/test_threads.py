from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sam2_blocks.service.threads import in_thread, to_the_end


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("wait", [in_thread, to_the_end])
def test_work_is_done_in_a_thread_and_its_result_or_error_comes_back(threads, wait):
    def fail():
        raise LookupError("nothing there")

    assert asyncio.run(wait(threads, threading.get_ident)) != threading.get_ident()
    with pytest.raises(LookupError, match="nothing there"):
        asyncio.run(wait(threads, fail))


class Work:
    """Runs until it is told to stop; then it fails, or not."""

    def __init__(self, error=None):
        self.started, self.stop, self.ended = (threading.Event() for _ in range(3))
        self.error = error

    def __call__(self):
        self.started.set()
        assert self.stop.wait(20)
        self.ended.set()
        if self.error:
            raise self.error


async def _cancel(threads, work, **options):
    task = asyncio.create_task(to_the_end(threads, work, **options))
    assert await asyncio.to_thread(work.started.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [None, ValueError("nobody hears this")])
def test_who_stops_waiting_asks_the_work_to_end_and_returns_after_it(threads, error, caplog):
    work = Work(error)
    asyncio.run(_cancel(threads, work, give_up=work.stop.set))
    assert work.ended.is_set()
    assert not caplog.records


def test_work_that_has_not_begun_is_not_done(threads):
    first, done = Work(), []

    async def run():
        running = asyncio.create_task(to_the_end(threads, first))
        assert await asyncio.to_thread(first.started.wait, 20)
        queued = asyncio.create_task(to_the_end(threads, lambda: done.append(1)))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        first.stop.set()
        await running

    asyncio.run(run())
    assert not done
