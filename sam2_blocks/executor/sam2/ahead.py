"""Frames and pictures that are announced are encoded ahead, on one core each.

A frame's encoding needs nothing of the frames before it, and what follows objects is a chain of
small operations that cannot keep several cores busy. So one core does the one and another the
other. Where small pictures are decoded and written, cores wait for each other, too, and encode what
comes next meanwhile. Sums are rounded as one core rounds them, which may differ in the last bits.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context

from sam2_blocks.clock import WAITING, stage
from sam2_blocks.executor.device.workers import MOST_CORES, Workers
from sam2_blocks.forks import after_fork
from sam2_blocks.heap import give_back
from sam2_blocks.values import Embedding, Image

Encode = Callable[[Image], Embedding]

MOST_PICTURES = 64
"""Announced at a time; a micro-batch has 8 unless somebody chooses another number."""

BATCH_SHARE = 4
"""Frames ahead take a quarter of the memory of a batch: large ones keep all cores busy anyway."""


def frames_ahead(cores: int, batch: int) -> int:
    """Return how many frames to encode ahead of the one that is followed; 0 for none.

    Args:
        cores: that compute.
        batch: frames whose encoding fits into memory at once.
    """
    return min(cores, batch // BATCH_SHARE) if 1 < cores <= MOST_CORES else 0


class FramesAhead:
    """The frames of one session that are announced and not given yet.

    Args:
        prepare: returns what encodes a frame in a thread of ``workers``; called when needed.
        workers: one core each.
        most: frames announced at a time; the oldest is forgotten.
    """

    def __init__(self, prepare: Callable[[], Encode], workers: Workers | None, most: int) -> None:
        self.most = most if workers is not None else 0
        self._prepare = prepare
        self._encode: Encode | None = None
        self._workers = workers
        self._coming: dict[int, tuple[Image, Future[Embedding]]] = {}
        after_fork(self._forget_parent)

    def _forget_parent(self) -> None:
        """Wait for nobody in a forked child, where the threads that encode are not."""
        self._coming = {}

    def expect(self, image: Image) -> None:
        """Begin to encode a frame, unless that has begun."""
        if self._workers is None or self.most == 0 or id(image) in self._coming:
            return
        if self._encode is None:
            self._encode = self._prepare()
            give_back()  # from here on, threads of their own take memory of their own
        # One more than are ahead: the frame that is about to be followed may be among them.
        while len(self._coming) > self.most:
            self._coming.pop(next(iter(self._coming)))[1].cancel()
        self._coming[id(image)] = image, self._workers.submit(self._encode, image)

    def take(self, image: Image) -> Embedding | None:
        """Return what a frame was encoded to; None if it was not announced."""
        coming = self._coming.pop(id(image), None)
        return None if coming is None else coming[1].result()

    def forget(self) -> None:
        """Let go of all frames that were announced."""
        for _, future in self._coming.values():
            future.cancel()
        self._coming = {}


class PicturesAhead:
    """The pictures that are announced and not given yet.

    They have threads of their own: prompts of pictures that are given do not queue behind them.

    Args:
        encode: a picture to its embedding, on one core; None if there is nothing to do.
        most: pictures announced at a time; those that are too many are not encoded ahead.
    """

    def __init__(self, encode: Callable[[Image], Embedding | None], most: int) -> None:
        self._encode = encode
        self._most = most
        self._workers: Workers | None = None
        self._forget_parent()
        after_fork(self._forget_parent)

    def _forget_parent(self) -> None:
        """Wait for nobody in a forked child, where neither threads nor who holds the lock are."""
        self._lock = threading.Lock()
        self._coming: dict[int, tuple[weakref.ref[Image], Future[Embedding | None]]] = {}
        self._overdue: set[int] = set()

    def expect(self, image: Image) -> None:
        """Begin to encode a picture, unless that has begun or there are too many."""
        name, coming = id(image), self._coming
        with self._lock:
            if name in coming or len(coming) >= self._most:
                return
            self._workers = self._workers or Workers()
            context = copy_context()  # has the clock of the run
            # A picture that nobody gives us is no longer waited for when it is gone.
            reference = weakref.ref(image, lambda _: coming.pop(name, None))
            encoding = self._workers.submit(
                lambda reference: context.run(self._try_to_encode, reference), reference
            )
            coming[name] = reference, encoding

    def take(self, image: Image) -> Embedding | None:
        """Return what a picture was encoded to; None if it was not, for whatever reason."""
        coming = self._coming.pop(id(image), None)
        if coming is None:
            return None
        with stage(WAITING):
            return coming[1].result()

    def forget_unused(self) -> None:
        """Let go of what was announced before the last call and not given since."""
        with self._lock:
            for name in self._overdue:
                self._coming.pop(name, None)
            self._overdue = set(self._coming)

    def _try_to_encode(self, reference: weakref.ref[Image]) -> Embedding | None:
        """Encode a picture that somebody holds still: nobody gives one that is gone."""
        image = reference()
        try:
            return None if image is None else self._encode(image)
        except Exception:  # who is given the picture encodes it again, and meets that, too
            return None
