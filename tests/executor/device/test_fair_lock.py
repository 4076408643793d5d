"""Threads get the lock in the order they ask, and an interrupted wait leaves it whole."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

import pytest

from sam2_blocks.executor.device.fair_lock import FairLock


def wait_until_queued(lock: FairLock, count: int) -> None:
    while len(lock._waiting) < count:
        time.sleep(0.001)


def test_threads_get_it_in_the_order_they_ask() -> None:
    lock, order = FairLock(), []

    def ask(number: int) -> None:
        with lock:
            order.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    with lock:
        for queued, thread in enumerate(threads, 1):
            thread.start()
            wait_until_queued(lock, queued)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_who_takes_it_again_and_again_lets_others_in_between() -> None:
    lock, order = FairLock(), []

    def ask_once() -> None:
        with lock:
            order.append("once")

    thread = threading.Thread(target=ask_once)
    for turn in range(3):
        with lock:
            order.append("again")
            if turn == 0:
                thread.start()
                wait_until_queued(lock, 1)
    thread.join()
    assert order == ["again", "once", "again", "again"]


def test_one_thread_holds_it_at_a_time() -> None:
    lock, inside, most = FairLock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_an_error_inside_gives_it_back() -> None:
    lock = FairLock()
    with pytest.raises(ValueError, match="inside"), lock:
        raise ValueError("inside")
    with lock:
        pass


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_an_interrupted_wait_leaves_it_to_the_others() -> None:
    lock, release = FairLock(), threading.Event()

    def hold() -> None:
        with lock:
            release.wait()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def signal_the_waiting_thread() -> None:
        wait_until_queued(lock, 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    holder = threading.Thread(target=hold)
    signaller = threading.Thread(target=signal_the_waiting_thread)
    try:
        holder.start()
        while not lock._held:
            time.sleep(0.001)
        signaller.start()
        with pytest.raises(KeyboardInterrupt), lock:
            pytest.fail("the other thread holds it")
    finally:
        signal.signal(signal.SIGUSR1, before)
        release.set()
        signaller.join()
        holder.join()
    assert not lock._waiting
    with lock:
        pass
    assert not lock._held
