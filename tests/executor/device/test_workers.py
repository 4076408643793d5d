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


def test_workers_that_start_at_once_do_not_count_each_other_s_cores(monkeypatch):
    cores = torch.get_num_threads()
    slowly = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (slowly(n), time.sleep(0.01)))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: Workers(), range(4)))
    assert [one.count for one in made] == [cores] * 4
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == cores
