from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sam2_blocks.executor.device.workers import Workers


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers()


def test_results_keep_the_order_of_the_items(workers):
    sizes = [4] * 24 + [3]
    doubled = workers.map_chunks(lambda chunk: [2 * item for item in chunk], range(99), sizes)
    assert doubled == list(range(0, 198, 2))
    assert workers.map_chunks(lambda chunk: chunk, [], []) == []


def test_every_worker_uses_one_core(workers):
    assert workers.count == torch.get_num_threads()
    assert set(workers.map_chunks(lambda chunk: [torch.get_num_threads()], range(9), [1] * 9)) == {
        1
    }


def test_one_item_alone(workers):
    assert workers.submit(lambda item: (item, torch.get_num_threads()), 5).result() == (5, 1)


def test_threads_of_the_application_keep_their_cores(workers):
    counts = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert counts == [workers.count] * 2


def test_an_exception_reaches_the_caller(workers):
    def fail(chunk):
        raise ValueError("bad prompt")

    with pytest.raises(ValueError, match="bad prompt"):
        workers.map_chunks(fail, range(5), [2, 2, 1])


def test_a_pool_that_starts_does_not_count_as_another_one_s_cores(monkeypatch):
    cores, plain, begun = torch.get_num_threads(), torch.set_num_threads, threading.Event()

    def set_slowly(count):
        plain(count)
        if not begun.is_set():
            begun.set()
            time.sleep(0.2)

    monkeypatch.setattr(torch, "set_num_threads", set_slowly)
    with ThreadPoolExecutor(2) as pool:  # of threads that torch does not know yet
        first = pool.submit(Workers)
        assert begun.wait(60)
        second = pool.submit(Workers)
    assert [made.result().count for made in (first, second)] == [cores] * 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == cores
