"""A bounded memory of results: least recently used goes first, equal work is done once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sam2_blocks.forks import after_fork

DEFAULT_CACHE_ENTRIES = 100_000
DEFAULT_DISK_CACHE_BYTES = 10 * 2**30


class Sized(Protocol):
    """Anything that knows how many bytes it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


Value = TypeVar("Value", bound=Sized)


@dataclass(frozen=True)
class CacheStats:
    """What a cache has done so far.

    Attributes:
        hits: answers that cost nothing, including those another caller was just computing.
        misses: what was asked for and not there.
        evictions: entries dropped to stay within the bounds.
        entries: entries held now.
        nbytes: bytes held now.
        tiers: the same for each tier, fastest first, where there are several. An entry that two
            tiers hold counts in both.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0
    nbytes: int = 0
    tiers: Mapping[str, CacheStats] = field(default_factory=dict)


class ByteCache(Generic[Value]):
    """An LRU cache bounded in bytes and entries, shared by threads.

    Args:
        max_bytes: an entry larger than this is not kept; 0 keeps nothing.
        max_entries: upper bound on the number of entries.
        on_drop: called with every entry that is evicted or not kept, before anybody can miss it.
            The cache waits for it: it should be quick, and must not call the cache.

    Example:
        >>> import numpy as np
        >>> cache = ByteCache(max_bytes=1000)
        >>> found = cache.get_many(["a", "b"], lambda missing: [np.zeros(2) for _ in missing])
        >>> again = cache.get_many(["b"], lambda missing: [])  # is not called: "b" is kept
        >>> again[0] is found[1], cache.stats().misses
        (True, 2)
    """

    def __init__(
        self,
        max_bytes: int,
        max_entries: int = DEFAULT_CACHE_ENTRIES,
        *,
        on_drop: Callable[[str, Value], None] | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._on_drop = on_drop
        self._entries: OrderedDict[str, Value] = OrderedDict()
        self._ages: dict[str, int] = {}
        self._age = 0
        self._in_flight: dict[str, Future[Value]] = {}
        self._nbytes = 0
        self._hits = self._misses = self._evictions = 0
        self._lock = threading.Lock()
        after_fork(self._start_afresh)

    def get_many(
        self, keys: Sequence[str], compute: Callable[[Sequence[str]], Sequence[Value]]
    ) -> list[Value]:
        """Return the values of these keys, computing the missing ones together.

        A key that another thread is computing is waited for, never computed twice.

        Args:
            keys: in any order, duplicates allowed.
            compute: maps the missing keys, each once, to their values; what it raises reaches
                everybody who waits for one of them, but for interruptions: then one of those who
                wait computes the value.
        """
        promises: dict[str, Future[Value]] = {}
        try:
            with self._lock:
                answers = {key: self._find(key) for key in dict.fromkeys(keys)}
                for key in [key for key, answer in answers.items() if answer is None]:
                    promises[key] = Future()
                    self._in_flight[key] = promises[key]
                self._misses += len(promises)
                self._hits += len(keys) - len(promises)
            if promises:
                self._keep_promises(promises, compute)
        except BaseException as error:  # Ctrl-C, too: nobody shall wait for what will not come
            self._break_promises(promises, error)
            raise
        everything = {**answers, **promises}
        return [self._value_of(key, everything[key], compute) for key in keys]

    def find(self, key: str) -> Value | None:
        """Return what is held under a key; nothing is computed or waited for."""
        with self._lock:
            if key not in self._entries:
                self._misses += 1
                return None
            self._hits += 1
            return self._use(key)

    def touch(self, key: str) -> bool:
        """Say whether a key is held; it then counts as used just now, but not as asked for."""
        with self._lock:
            if key in self._entries:
                self._use(key)
            return key in self._entries

    def put(self, key: str, value: Value) -> None:
        """Keep a value that was made elsewhere, if it is within the bounds.

        Args:
            key: its name.
            value: it; others may go for it.
        """
        with self._lock:
            self._store(key, value)

    def stats(self) -> CacheStats:
        """Return a snapshot of the counters."""
        with self._lock:
            return CacheStats(
                self._hits, self._misses, self._evictions, len(self._entries), self._nbytes
            )

    def clear(self) -> None:
        """Drop all entries; counters stay."""
        with self._lock:
            self._entries.clear()
            self._ages.clear()
            self._nbytes = 0

    def forget_unused(self) -> None:
        """Drop what was not used since the last call; ``on_drop`` does not get it."""
        with self._lock:
            while self._entries and self._ages[next(iter(self._entries))] < self._age:
                self._pop_oldest()
            self._age += 1

    def _find(self, key: str) -> Value | Future[Value] | None:
        return self._use(key) if key in self._entries else self._in_flight.get(key)

    def _use(self, key: str) -> Value:
        self._entries.move_to_end(key)
        self._ages[key] = self._age
        return self._entries[key]

    def _keep_promises(
        self,
        promises: dict[str, Future[Value]],
        compute: Callable[[Sequence[str]], Sequence[Value]],
    ) -> None:
        values = compute(list(promises))
        with self._lock:
            for key, value in zip(promises, values, strict=True):
                self._store(key, value)
                self._in_flight.pop(key, None)
        for promise, value in zip(promises.values(), values, strict=True):
            promise.set_result(value)

    def _break_promises(self, promises: Mapping[str, Future[Value]], error: BaseException) -> None:
        """Tell those who wait; an interruption is the business of the thread it came to alone."""
        told = error if isinstance(error, Exception) else _GivenUpError()
        with self._lock:
            for key, promise in promises.items():
                if self._in_flight.get(key) is promise:
                    del self._in_flight[key]
        for promise in promises.values():
            if not promise.done():
                promise.set_exception(told)

    def _value_of(
        self,
        key: str,
        answer: Value | Future[Value] | None,
        compute: Callable[[Sequence[str]], Sequence[Value]],
    ) -> Value:
        assert answer is not None
        if not isinstance(answer, Future):
            return answer
        try:
            return answer.result()
        except _GivenUpError:  # whoever computed it was interrupted, so we do
            return self.get_many([key], compute)[0]

    def _start_afresh(self) -> None:
        """Make what threads share anew in a forked child: those who held it are not there."""
        if self._lock.locked():  # in the middle of a change
            self._entries, self._ages, self._nbytes = OrderedDict(), {}, 0
        self._in_flight = {}
        self._lock = threading.Lock()

    def _store(self, key: str, value: Value) -> None:
        if value.nbytes > self._max_bytes:
            self._drop(key, value)
            return
        if key in self._entries:
            self._nbytes -= self._entries.pop(key).nbytes
        self._entries[key] = value
        self._ages[key] = self._age
        self._nbytes += value.nbytes
        while self._nbytes > self._max_bytes or len(self._entries) > self._max_entries:
            self._drop(*self._pop_oldest())

    def _pop_oldest(self) -> tuple[str, Value]:
        key, value = self._entries.popitem(last=False)
        del self._ages[key]
        self._nbytes -= value.nbytes
        self._evictions += 1
        return key, value

    def _drop(self, key: str, value: Value) -> None:
        if self._on_drop is not None:
            self._on_drop(key, value)


class _GivenUpError(Exception):
    """Whoever computed a value for others, too, was interrupted."""
