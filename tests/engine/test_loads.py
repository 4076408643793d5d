from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sam2_blocks.engine.loads import Loads
from sam2_blocks.errors import ModelError

SOON = 120  # seconds; a wait that lasts longer never ends


def test_a_value_is_made_once_for_all_who_ask():
    loads, made = Loads(), []
    gate = threading.Barrier(4)

    def ask():
        gate.wait(SOON)
        return loads.get("a", lambda: made.append(1) or object())

    with ThreadPoolExecutor(4) as pool:
        values = [future.result(SOON) for future in [pool.submit(ask) for _ in range(4)]]
    assert len(made) == 1
    assert len(set(map(id, values))) == 1


def test_what_is_made_never_waits_for_what_is_not():
    loads, started, released = Loads(), threading.Event(), threading.Event()
    loads.get("ready", lambda: 1)

    def download():
        started.set()
        assert released.wait(SOON)
        return 2

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(loads.get, "slow", download)
        assert started.wait(SOON)
        assert pool.submit(loads.get, "ready", lambda: 0).result(SOON) == 1
        assert loads.get("other", lambda: 3) == 3
        released.set()
        assert slow.result(SOON) == 2


def test_what_is_kept_is_named_once_whatever_it_is_known_by():
    loads: Loads[str, list[int]] = Loads()
    first = loads.get("auto", lambda: [1])
    loads.keep("cpu", first)
    second = loads.get("other", lambda: [1])
    assert [id(value) for value in loads.made()] == [id(first), id(second)]


def test_making_one_value_may_ask_for_another():
    loads = Loads()
    assert loads.get("outer", lambda: loads.get("inner", lambda: 1) + 1) == 2


def test_a_value_that_needs_itself_is_an_error():
    loads = Loads()
    with pytest.raises(ModelError, match="a is asked for while it is being loaded"):
        loads.get("a", lambda: loads.get("b", lambda: loads.get("a", lambda: 0)))
    assert loads.get("a", lambda: 5) == 5


def test_threads_that_wait_for_each_other_get_an_error():
    loads, both = Loads(), threading.Barrier(2)

    def make(other):
        both.wait(SOON)
        return loads.get(other, lambda: 0)

    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(loads.get, one, lambda other=other: make(other))
            for one, other in (("a", "b"), ("b", "a"))
        ]
        errors = [future.exception(SOON) for future in futures]
    assert all("its loading waits for itself" in str(error) for error in errors)


def test_a_failure_reaches_who_waits_and_the_next_call_tries_again():
    loads, started, released = Loads(), threading.Event(), threading.Event()

    def fail():
        started.set()
        released.wait(SOON)
        raise ModelError("no network")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(loads.get, "a", fail)
        assert started.wait(SOON)
        second = pool.submit(loads.get, "a", fail)
        while not loads._waits:
            pass
        released.set()
        for future in (first, second):
            assert "no network" in str(future.exception(SOON))
    assert loads.get("a", lambda: 1) == 1


def test_an_interrupt_is_for_its_own_thread_and_another_makes_the_value():
    loads, started, released = Loads(), threading.Event(), threading.Event()

    def interrupted():
        started.set()
        released.wait(SOON)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(loads.get, "a", interrupted)
        assert started.wait(SOON)
        second = pool.submit(loads.get, "a", lambda: 7)
        while not loads._waits:
            pass
        released.set()
        assert second.result(SOON) == 7
        assert isinstance(first.exception(SOON), KeyboardInterrupt)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_makes_what_its_parent_was_making():
    loads, started, released = Loads(), threading.Event(), threading.Event()

    def slow():
        started.set()
        released.wait(SOON)
        return 1

    loads.get("kept", lambda: 5)
    thread = threading.Thread(target=loads.get, args=("a", slow))
    thread.start()
    assert started.wait(SOON)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(
        target=lambda: queue.put((loads.get("a", lambda: 2), loads.get("kept", lambda: 0)))
    )
    child.start()
    child.join(SOON)
    stuck = child.is_alive()
    if stuck:
        child.kill()
    released.set()
    thread.join(SOON)
    assert not stuck
    assert queue.get() == (2, 5)
