"""Pictures of strangers → pixels, in processes that can be killed.

Most pictures take milliseconds. So each first gets a short time and little memory in one of several
processes; what needs more waits its turn for the one with the limits of the operator. A picture
made to be slow or large thus holds up others of its like, and for no longer than that.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, TypeVar, cast

import numpy as np

import sam2_blocks
from sam2_blocks.service.decoder import (
    ANSWER,
    MEASURE,
    NO_MEMORY,
    PIXELS,
    QUESTION,
    READY,
    REFUSED,
)
from sam2_blocks.service.errors import ImageRefusedError
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.service.threads import Workers, to_the_end
from sam2_blocks.values import Hw, UInt8Array

QUICK_PROCESSES = min(4, os.cpu_count() or 1)
QUICK_S = 1.0
QUICK_BYTES = 192 * 2**20
MIB = 2**20
BOOT = """
import sys, types
package = types.ModuleType("sam2_blocks")
package.__path__ = [sys.argv[1]]
sys.modules["sam2_blocks"] = package
from sam2_blocks.service.decoder import main
main(int(sys.argv[2]))
"""
"""Starts a decoder without what `import sam2_blocks` offers: that takes longer than the rest."""

Answer = TypeVar("Answer")


class OverLimitError(ImageRefusedError):
    """The picture takes longer, or more memory, than it may, or so it seems."""


class Decoders:
    """Decodes encoded pictures; lives in one event loop, its processes start when needed.

    Args:
        settings: limits of pixels, time and memory.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._max_pixels = settings.max_pixels
        quick_s = min(QUICK_S, settings.decode_s)
        quick_bytes = min(QUICK_BYTES, settings.decode_bytes)
        self._quick = _Pool(QUICK_PROCESSES, "quick", quick_s, quick_bytes)
        self._patient = _Pool(1, "patient", settings.decode_s, settings.decode_bytes)

    @property
    def workers(self) -> tuple[Workers, ...]:
        """The threads that wait for the processes."""
        return self._quick.workers, self._patient.workers

    async def measure(self, content: bytes) -> Hw:
        """Read height and width from the header of a picture, as they are in the file.

        Raises:
            ImageRefusedError: if it is none, too large, or its header is no matter of moments.
        """
        return await self._ask(lambda process: process.measure(content, self._max_pixels))

    async def decode(self, content: bytes) -> UInt8Array:
        """Decode a picture: uint8 (H, W, 3), RGB, upright.

        Raises:
            ImageRefusedError: if it is none, too large, or takes too much time or memory.
        """
        return await self._ask(lambda process: process.decode(content, self._max_pixels))

    async def _ask(self, ask: Callable[[_Process], Answer]) -> Answer:
        try:
            return await self._quick.run(ask)
        except OverLimitError:
            return await self._patient.run(ask)

    def start(self) -> None:
        """Start those for most pictures now, beside the caller, not with the first ones."""
        self._quick.start()

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._quick.close()
        self._patient.close()


class _Pool:
    """A few processes with the same limits, and a thread to wait for each."""

    def __init__(self, count: int, name: str, time_s: float, max_bytes: int) -> None:
        self.workers = Workers(count, f"sam2-blocks-decode-{name}")
        self._processes = [_Process(time_s, max_bytes) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)

    async def run(self, ask: Callable[[_Process], Answer]) -> Answer:
        """Let one process answer; if nobody waits any more, it is killed."""
        given_up = threading.Event()
        taking = threading.Lock()
        taken: list[_Process] = []

        def work() -> Answer:
            process = self._idle.get()
            try:
                with taking:
                    taken.append(process)
                if given_up.is_set():
                    raise ImageRefusedError("nobody waits for it any more.")
                return ask(process)
            finally:
                with taking:
                    taken.clear()
                self._idle.put(process)

        def give_up() -> None:
            given_up.set()
            with taking:
                for process in taken:
                    process.kill()

        return await to_the_end(self.workers, work, give_up=give_up)

    def start(self) -> None:
        """Start the processes now, beside the caller."""
        for _ in self._processes:
            self.workers.submit(self._start_one)

    def _start_one(self) -> None:
        process = self._idle.get()
        try:
            process.start()
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes; threads that wait for them go on at once."""
        for process in self._processes:
            process.close()
        self.workers.shutdown(cancel_futures=True)
        for process in self._processes:
            process.bury()


class _Process:
    """One `decoder`, which is started when it is asked and is not there; one thread may ask."""

    def __init__(self, time_s: float, max_bytes: int) -> None:
        self._time_s = time_s
        self._max_bytes = max_bytes
        self._running: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._turn = 0  # so that a clock that is late ends no later one
        self._lock = threading.Lock()

    def measure(self, content: bytes, max_pixels: int) -> Hw:
        """Return height and width."""
        return self._ask(MEASURE, content, max_pixels, lambda _, hw: hw)

    def decode(self, content: bytes, max_pixels: int) -> UInt8Array:
        """Return the pixels."""
        return self._ask(PIXELS, content, max_pixels, _read_pixels)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process, unless it runs, and wait until it can be asked."""
        with self._lock:
            if self._closed:
                raise ImageRefusedError("the service is shutting down.")
            if self._running is not None:
                return self._running
            self._running = process = _start_process(self._max_bytes)
        try:
            _read_exactly(process, len(READY))
        except EOFError:
            self._bury(process)
            if self._closed:
                raise ImageRefusedError("the service is shutting down.") from None
            raise RuntimeError("a process that decodes pictures ended before it began") from None
        return process

    def kill(self) -> None:
        """End the process; who waits for it gets an error at once."""
        with self._lock:
            if self._running is not None:
                self._running.kill()

    def close(self) -> None:
        """End it for good."""
        with self._lock:
            self._closed = True
        self.kill()

    def bury(self) -> None:
        """Let go of a process that was ended, once no thread asks any more."""
        if self._running is not None:
            self._bury(self._running)

    def _ask(
        self,
        question: bytes,
        content: bytes,
        max_pixels: int,
        read: Callable[[BinaryIO, Hw], Answer],
    ) -> Answer:
        process = self.start()
        is_late = threading.Event()
        turn = self._turn

        def end() -> None:
            with self._lock:
                if self._turn == turn:
                    is_late.set()
                    process.kill()

        clock = threading.Timer(self._time_s, end)
        clock.daemon = True
        clock.start()
        try:
            kind, first, second = _send(process, question, max_pixels, content)
            if kind in (REFUSED, NO_MEMORY):
                raise self._refusal(kind, _read_exactly(process, first))
            if kind != question or first * second > max_pixels:
                raise EOFError
            return read(_pipe(process.stdout), (first, second))
        except (EOFError, OSError) as error:
            self._bury(process)
            raise self._death(is_late=is_late.is_set()) from error
        finally:
            clock.cancel()
            with self._lock:
                self._turn += 1
            if is_late.is_set():
                self._bury(process)

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was not flushed has no reader any more
                _pipe(pipe).close()
        with self._lock:
            if self._running is process:
                self._running = None

    def _refusal(self, kind: bytes, text: bytes) -> ImageRefusedError:
        if not text:
            return OverLimitError(f"it takes more than {self._max_bytes // MIB} MiB to decode.")
        message = text.decode("utf-8", "replace")
        return OverLimitError(message) if kind == NO_MEMORY else ImageRefusedError(message)

    def _death(self, *, is_late: bool) -> ImageRefusedError:
        if self._closed:
            return ImageRefusedError("the service is shutting down.")
        if is_late:
            return OverLimitError(f"it takes longer than {self._time_s:g} s to decode.")
        return OverLimitError("cannot be decoded: the process that tried has died.")


def _start_process(max_bytes: int) -> subprocess.Popen[bytes]:
    """Start a decoder that finds this package where it was found here, and has one thread."""
    package = str(Path(sam2_blocks.__file__).parent)
    path = os.pathsep.join(filter(None, sys.path))
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-c", BOOT, package, str(max_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **single, "PYTHONPATH": path},
    )


def _send(
    process: subprocess.Popen[bytes], question: bytes, max_pixels: int, content: bytes
) -> tuple[bytes, int, int]:
    stdin = _pipe(process.stdin)
    stdin.write(QUESTION.pack(question, max_pixels, len(content)))
    stdin.write(content)
    stdin.flush()
    kind, first, second = ANSWER.unpack(_read_exactly(process, ANSWER.size))
    return kind, first, second


def _read_exactly(process: subprocess.Popen[bytes], nbytes: int) -> bytes:
    found = _pipe(process.stdout).read(nbytes)
    if len(found) < nbytes:
        raise EOFError
    return found


def _read_pixels(stdout: BinaryIO, hw: Hw) -> UInt8Array:
    pixels = np.empty((*hw, 3), np.uint8)
    if stdout.readinto(pixels.reshape(-1).data) < pixels.nbytes:  # type: ignore[attr-defined]
        raise EOFError
    return pixels


def _pipe(pipe: IO[bytes] | None) -> BinaryIO:
    assert pipe is not None  # asked for when the process was started
    return cast(BinaryIO, pipe)
