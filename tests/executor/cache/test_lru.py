from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from sam2_blocks.executor.cache.lru import ByteCache, CacheStats


@dataclass(frozen=True)
class Entry:
    name: str
    nbytes: int = 10


def entries(keys):
    return [Entry(key) for key in keys]


def refuse(keys):
    raise AssertionError(f"asked to compute {keys}")


def test_equal_keys_are_computed_once():
    cache: ByteCache[Entry] = ByteCache(100)
    assert cache.get_many(["a", "b", "a"], entries) == entries(["a", "b", "a"])
    assert cache.get_many(["b", "a"], refuse) == entries(["b", "a"])
    assert cache.stats() == CacheStats(hits=3, misses=2, evictions=0, entries=2, nbytes=20)


def test_least_recently_used_goes_first():
    cache: ByteCache[Entry] = ByteCache(30)
    cache.get_many(["a", "b", "c"], entries)
    cache.get_many(["a"], refuse)
    cache.get_many(["d"], entries)
    cache.get_many(["a", "c", "d"], refuse)
    with pytest.raises(AssertionError, match="asked to compute"):
        cache.get_many(["b"], refuse)


def test_bounded_in_entries():
    cache: ByteCache[Entry] = ByteCache(1000, max_entries=2)
    cache.get_many(["a", "b", "c"], entries)
    assert cache.stats() == CacheStats(misses=3, evictions=1, entries=2, nbytes=20)


def test_find_computes_nothing_and_counts_as_use():
    cache: ByteCache[Entry] = ByteCache(20)
    assert cache.find("a") is None
    cache.get_many(["a", "b"], entries)
    assert cache.find("a") == Entry("a")
    cache.get_many(["c"], entries)
    assert cache.find("b") is None
    assert cache.stats() == CacheStats(hits=1, misses=5, evictions=1, entries=2, nbytes=20)


def test_what_does_not_fit_is_answered_but_not_kept():
    cache: ByteCache[Entry] = ByteCache(9)
    assert cache.get_many(["a"], entries) == entries(["a"])
    assert cache.stats() == CacheStats(misses=1)


def test_what_was_made_elsewhere_can_be_put_in_its_place():
    cache: ByteCache[Entry] = ByteCache(30)
    cache.get_many(["a", "b"], entries)
    cache.put("a", Entry("new", 15))
    assert cache.get_many(["a"], refuse) == [Entry("new", 15)]
    assert cache.stats() == CacheStats(hits=1, misses=2, entries=2, nbytes=25)
    cache.put("c", Entry("c"))
    assert (cache.touch("a"), cache.touch("b")) == (True, False)


def test_touching_counts_as_use_but_not_as_a_question():
    cache: ByteCache[Entry] = ByteCache(20)
    cache.get_many(["a", "b"], entries)
    assert cache.touch("a")
    cache.put("c", Entry("c"))
    assert (cache.touch("a"), cache.touch("b")) == (True, False)
    assert cache.stats() == CacheStats(misses=2, evictions=1, entries=2, nbytes=20)


def test_what_is_dropped_is_handed_on_in_order():
    dropped: list[Entry] = []
    cache: ByteCache[Entry] = ByteCache(20, on_drop=lambda key, value: dropped.append(value))
    cache.get_many(["a", "b", "c"], entries)
    cache.put("large", Entry("large", 21))
    cache.get_many(["d"], entries)
    assert [entry.name for entry in dropped] == ["a", "large", "b"]


def test_what_nobody_used_between_two_calls_is_forgotten():
    dropped: list[Entry] = []
    cache: ByteCache[Entry] = ByteCache(100, on_drop=lambda key, value: dropped.append(value))
    cache.get_many(["a", "b", "c", "d"], entries)
    cache.forget_unused()
    assert cache.stats().entries == 4  # all were used before the first call
    assert cache.find("b")
    cache.get_many(["d", "e"], entries)
    cache.forget_unused()
    assert [cache.touch(key) for key in "abcde"] == [False, True, False, True, True]
    cache.forget_unused()
    cache.forget_unused()
    assert (cache.stats().entries, cache.stats().nbytes, dropped) == (0, 0, [])
    cache.get_many(["a"], entries)
    assert cache.stats().nbytes == 10


def test_clear_drops_the_entries():
    cache: ByteCache[Entry] = ByteCache(100)
    cache.get_many(["a"], entries)
    cache.clear()
    assert cache.stats() == CacheStats(misses=1)


def test_many_who_ask_at_once_share_one_computation():
    cache: ByteCache[Entry] = ByteCache(100)
    started, finish = threading.Event(), threading.Event()
    computed: list[str] = []
    answers: list[Entry] = []

    def slowly(keys):
        computed.extend(keys)
        started.set()
        assert finish.wait(60)
        return entries(keys)

    def ask(keys):
        answers.extend(cache.get_many(keys, slowly))

    threads = [threading.Thread(target=ask, args=(["a"],))]
    threads[0].start()
    assert started.wait(60)
    threads += [threading.Thread(target=ask, args=(["a"],)) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    finish.set()
    for thread in threads:
        thread.join()
    assert computed == ["a"]
    assert answers == entries(["a"] * 4)


def test_a_failure_is_raised_and_not_remembered():
    cache: ByteCache[Entry] = ByteCache(100)

    def fail(keys):
        raise ValueError("bad picture")

    with pytest.raises(ValueError, match="bad picture"):
        cache.get_many(["a"], fail)
    assert cache.get_many(["a"], entries) == entries(["a"])


@pytest.mark.parametrize(("max_bytes", "given"), [(100, 1), (0, 2)], ids=["too few", "no place"])
def test_nobody_waits_for_what_failed_after_it_was_computed(max_bytes, given):
    def refuse_to_drop(key, value):
        raise RuntimeError(f"no place for {key}")

    cache: ByteCache[Entry] = ByteCache(max_bytes, on_drop=refuse_to_drop)
    with pytest.raises((RuntimeError, ValueError), match=r"no place for a|shorter"):
        cache.get_many(["a", "b"], lambda keys: entries(keys[:given]))
    asked: list[str] = []

    def fail(keys):
        asked.extend(keys)
        raise LookupError

    def ask():
        with pytest.raises(LookupError):
            cache.get_many(["b"], fail)

    later = threading.Thread(target=ask, daemon=True)
    later.start()
    later.join(60)
    assert asked == ["b"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_those_who_wait_for_an_interrupted_thread_get_the_value(interruption):
    cache: ByteCache[Entry] = ByteCache(100)
    started, go_on = threading.Event(), threading.Event()
    answers, raised = [], []

    def interrupted(keys):
        started.set()
        go_on.wait(60)
        raise interruption

    def first():
        try:
            cache.get_many(["a", "b"], interrupted)
        except BaseException as error:
            raised.append(type(error))

    def later():
        answers.append(cache.get_many(["a"], entries))

    threads = [threading.Thread(target=first)]
    threads[0].start()
    started.wait(60)
    threads += [threading.Thread(target=later) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert raised == [interruption]
    assert answers == [entries(["a"])] * 3
    assert cache.get_many(["b"], entries) == entries(["b"])


def test_an_interruption_before_the_computation_leaves_nobody_waiting(monkeypatch):
    cache: ByteCache[Entry] = ByteCache(100)

    def interrupt(promises, compute):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_keep_promises", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache.get_many(["a"], entries)
    assert cache.get_many(["a"], entries) == entries(["a"])


def test_a_fork_in_the_middle_of_a_change_forgets_what_may_be_half_changed():
    cache: ByteCache[Entry] = ByteCache(100)
    cache.get_many(["a"], entries)
    cache._start_afresh()
    assert cache.find("a") is not None
    cache._in_flight["b"] = Future()
    cache._lock.acquire()
    cache._start_afresh()
    assert cache.find("a") is None
    assert cache.stats().nbytes == 0
    assert cache.get_many(["b"], entries) == entries(["b"])
