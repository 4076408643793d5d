from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sam2_blocks.service.batching import Batcher


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def make(thread, run, sizes=None, *, max_items=8, window_s=0.01):
    return Batcher(
        run,
        thread,
        window_s=window_s,
        max_items=max_items,
        observe=[].append if sizes is None else sizes.append,
    )


def doubled(items):
    return [2 * item for item in items]


def test_items_that_come_together_run_together(thread):
    sizes = []

    async def run():
        batcher = make(thread, doubled, sizes)
        return await asyncio.gather(*(batcher.submit(n) for n in range(5)))

    assert asyncio.run(run()) == [0, 2, 4, 6, 8]
    assert sizes == [5]


def test_no_batch_is_larger_than_allowed(thread):
    sizes = []

    async def run():
        batcher = make(thread, doubled, sizes, max_items=2)
        return await asyncio.gather(*(batcher.submit(n) for n in range(5)))

    assert asyncio.run(run()) == [0, 2, 4, 6, 8]
    assert sizes == [2, 2, 1]


def test_while_a_batch_runs_the_next_one_fills(thread):
    sizes, release = [], threading.Event()

    def slowly(items):
        assert release.wait(120)
        return doubled(items)

    async def run():
        batcher = make(thread, slowly, sizes, window_s=0)
        tasks = [asyncio.create_task(batcher.submit(1))]
        while not sizes:
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(batcher.submit(n)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == [2, 4, 6, 8]
    assert sizes == [1, 3]


def test_one_bad_item_fails_alone(thread):
    def picky(items):
        if 2 in items:
            raise ValueError("two")
        return doubled(items)

    async def run():
        batcher = make(thread, picky)
        return await asyncio.gather(*(batcher.submit(n) for n in (1, 2, 3)), return_exceptions=True)

    first, second, third = asyncio.run(run())
    assert (first, third) == (2, 6)
    assert isinstance(second, ValueError)


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_that_returns_too_few_results_is_an_error_of_its_items(thread, count):
    async def run():
        batcher = make(thread, lambda items: doubled(items)[1:])
        waiting = asyncio.gather(*map(batcher.submit, range(count)), return_exceptions=True)
        return await asyncio.wait_for(waiting, 120)

    for error in asyncio.run(run()):
        assert isinstance(error, RuntimeError)
        assert str(error) == "a batch of 1 came back with 0 results"


def test_an_item_whose_caller_left_is_not_run_again_either(thread):
    ran, callers = [], []

    def fail_together(items):
        ran.append(items)
        if len(items) > 1:
            callers[1].get_loop().call_soon_threadsafe(callers[1].cancel)
            raise ValueError("one of you is bad")
        return doubled(items)

    async def run():
        batcher = make(thread, fail_together)
        callers.extend(asyncio.ensure_future(batcher.submit(n)) for n in range(2))
        return await asyncio.gather(*callers, return_exceptions=True)

    first, second = asyncio.run(run())
    assert first == 0
    assert isinstance(second, asyncio.CancelledError)
    assert ran == [[0, 1], [0]]


def test_an_item_whose_caller_left_is_not_run(thread):
    ran = []

    def remember(items):
        ran.extend(items)
        return items

    async def run():
        batcher = make(thread, remember)
        leaving = asyncio.create_task(batcher.submit("gone"))
        staying = asyncio.create_task(batcher.submit("here"))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(run()) == "here"
    assert ran == ["here"]


def test_it_works_again_after_all_is_done(thread):
    async def run():
        batcher = make(thread, doubled)
        return [await batcher.submit(1), await batcher.submit(2)]

    assert asyncio.run(run()) == [2, 4]
