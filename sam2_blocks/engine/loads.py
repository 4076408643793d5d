"""Values that take long to make: each is made once, and nobody waits for a value of no concern."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from sam2_blocks.errors import ModelError

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(eq=False)
class _Load(Generic[Key]):
    """One value that a thread is making."""

    key: Key
    thread: int = field(default_factory=threading.get_ident)
    ended: threading.Event = field(default_factory=threading.Event)
    error: ModelError | None = None


class Loads(Generic[Key, Value]):
    """Values that take long to make, shared by threads.

    Making one may ask for others. Nothing is held meanwhile but a promise for this one key, and
    threads that would wait for each other in a circle get an error instead. A forked child keeps
    what was made and makes the rest anew, since the threads that were at it stayed behind.
    """

    def __init__(self) -> None:
        self._made: dict[Key, Value] = {}
        self._given_up: WeakValueDictionary[Key, Value] = WeakValueDictionary()
        self._start_afresh()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key; make it if nobody did, or wait for who is at it.

        Args:
            key: what it is known by.
            make: makes it; what it raises reaches all who wait, and the next call tries again.

        Raises:
            ModelError: if ``make`` does, or waits for itself by way of others.
        """
        if os.getpid() != self._process:
            self._start_afresh()
        while True:
            with self._lock:
                if key in self._made:
                    return self._made[key]
                if (held := self._held(key)) is not None:
                    return held
                load = self._running.get(key)
                if load is None:
                    mine = self._running[key] = _Load(key)
                    break
                self._check_circle(load)
                self._waits[threading.get_ident()] = load
            self._wait(load)
        return self._make(mine, make)

    def keep(self, key: Key, value: Value) -> Value:
        """Keep a value under another key too, unless there is one.

        Args:
            key: what the value is known by as well.
            value: it.

        Returns:
            The value that is kept under this key now.
        """
        with self._lock:
            held = self._held(key)
            return held if held is not None else self._made.setdefault(key, value)

    def made(self) -> list[Value]:
        """Return every value that is kept, once, whatever it is known by."""
        with self._lock:
            return list({id(value): value for value in self._made.values()}.values())

    def give_up(self, value: Value) -> None:
        """Forget a value; while somebody holds it, whoever asks gets it, and it is kept again."""
        with self._lock:
            for key in [key for key, made in self._made.items() if made is value]:
                del self._made[key]
                with suppress(TypeError):  # a class of a plugin may allow no weak references
                    self._given_up[key] = value

    def _held(self, key: Key) -> Value | None:
        """Take back what was given up and is still there; the lock is held."""
        value = self._given_up.pop(key, None)
        if value is not None:
            self._made[key] = value
        return value

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._running: dict[Key, _Load[Key]] = {}
        self._waits: dict[int, _Load[Key]] = {}  # by the thread that waits

    def _make(self, load: _Load[Key], make: Callable[[], Value]) -> Value:
        try:
            value = make()
            return self.keep(load.key, value)
        except ModelError as error:
            load.error = error
            raise
        finally:  # interrupted without an error, too: then another one who waits makes it
            with self._lock:
                self._running.pop(load.key, None)
            load.ended.set()

    def _wait(self, load: _Load[Key]) -> None:
        try:
            load.ended.wait()
        finally:
            with self._lock:
                self._waits.pop(threading.get_ident(), None)
        if load.error is not None:
            raise ModelError(str(load.error)) from load.error

    def _check_circle(self, load: _Load[Key]) -> None:
        """Follow who waits for whom from the maker of a value; it may not lead back to us."""
        me, next_one = threading.get_ident(), load
        while next_one.thread != me:
            waited_for = self._waits.get(next_one.thread)
            if waited_for is None:
                return
            next_one = waited_for
        raise ModelError(
            f"{load.key} is asked for while it is being loaded: its loading waits for itself. "
            "A family may ask for other models, not in a circle."
        )
