from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sam2_blocks.errors import ForeignError
from sam2_blocks.masks.stopping import look_up
from sam2_blocks.service.errors import GivenUpError
from sam2_blocks.service.threads import Workers, in_thread, to_the_end, while_wanted


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
        assert self.stop.wait(120)
        self.ended.set()
        if self.error:
            raise self.error


async def _cancel(threads, work, **options):
    task = asyncio.create_task(to_the_end(threads, work, **options))
    assert await asyncio.to_thread(work.started.wait, 120)
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
        assert await asyncio.to_thread(first.started.wait, 120)
        queued = asyncio.create_task(to_the_end(threads, lambda: done.append(1)))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        first.stop.set()
        await running

    asyncio.run(run())
    assert not done


def test_threads_are_stalled_only_while_none_is_free():
    gate, entered = threading.Event(), threading.Semaphore(0)

    def work():
        entered.release()
        assert gate.wait(120)

    with Workers(2, "test") as workers:
        assert workers.stalled_s() == 0
        workers.submit(work)
        entered.acquire()
        assert workers.stalled_s() == 0
        workers.submit(work)
        entered.acquire()
        first = workers.stalled_s()
        while workers.stalled_s() <= first:
            pass
        gate.set()
    assert workers.stalled_s() == 0


def test_a_long_loop_ends_once_nobody_waits_for_it():
    entered, ended = threading.Event(), []

    def work():
        try:
            while True:
                look_up()
                entered.set()
        except GivenUpError as error:
            ended.append(str(error))

    async def run(workers):
        waiting = asyncio.create_task(while_wanted(workers, work))
        await asyncio.to_thread(entered.wait, 120)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with Workers(1, "test") as workers:
        asyncio.run(run(workers))
    assert ended == ["nobody waits for the answer any more."]


def test_what_nobody_waits_for_by_then_is_not_begun():
    gate, begun = threading.Event(), []

    async def run(workers):
        first = asyncio.create_task(while_wanted(workers, lambda: gate.wait(120)))
        second = asyncio.create_task(while_wanted(workers, lambda: begun.append(True)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        gate.set()
        assert await first

    with Workers(1, "test") as workers:
        asyncio.run(run(workers))
    assert begun == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_that_it_has_no_threads():
    workers = Workers(1, "cooks")
    assert workers.submit(int).result() == 0
    child = os.fork()
    if not child:
        try:
            workers.submit(int)
        except RuntimeError as error:
            os._exit(0 if "'cooks'" in str(error) and "after the fork" in str(error) else 2)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    workers.shutdown()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("raised", [SystemExit(0), GeneratorExit(), asyncio.CancelledError()])
def test_what_leaves_a_thread_does_not_end_the_event_loop(raised):
    def leave():
        raise raised

    async def run(workers):
        for start in (in_thread, while_wanted, to_the_end):
            with pytest.raises(ForeignError, match=type(raised).__name__):
                await start(workers, leave)

    with Workers(1, "test") as workers:
        asyncio.run(run(workers))
