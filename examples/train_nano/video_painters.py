"""Clips painted by other processes, handed over in memory that all of them share.

The processes are forked, so that they start with torch loaded; start them before CUDA is used.
Only one side writes to a slot at a time: a painter while its flag is 0, the trainer while it is 1.
"""

from __future__ import annotations

import itertools
import math
import mmap
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from examples.train_nano.scenes import GROUND, LAYERS
from examples.train_nano.video_pool import hides_for
from examples.train_nano.video_scenes import Clip, VideoScenes

IDS = GROUND + LAYERS
SLOTS = 3  # finished clips that one painter may be ahead
PAUSE_S = 0.01


class Slot:
    """Room for one clip, in memory that forked processes share.

    Attributes:
        full: (1,) uint8, whether a clip waits here.
        images: (T, 3, S, S) uint8.
        ids: (T, S, S) uint8.
        member: (J, I) bool, as in `Scene`.
    """

    def __init__(self, frames: int, size: int) -> None:
        shapes = [(1,), (frames, 3, size, size), (frames, size, size), (2 * IDS, IDS)]
        counts = [math.prod(shape) for shape in shapes]
        room = torch.from_numpy(np.frombuffer(mmap.mmap(-1, sum(counts)), np.uint8))
        parts = room.split(counts)  # type: ignore[no-untyped-call]
        self.full, self.images, self.ids, member = (
            part.view(shape) for part, shape in zip(parts, shapes, strict=True)
        )
        self.member = member.view(torch.bool)

    def put(self, clip: Clip) -> None:
        """Hand over a clip; its colours are rounded to bytes."""
        self.images.copy_((clip.images * 255).round_())
        self.ids.copy_(clip.ids)
        self.member.copy_(clip.member)
        self.full.fill_(1)


class Painters:
    """Processes that paint clips until they are stopped, or their parent is gone.

    Args:
        count: how many.
        frames: of a clip.
        size: pixels of a side.
        seed: of the first painter; the next ones count up.
        bank: textures of each painter.
    """

    def __init__(
        self, count: int, *, frames: int, size: int, seed: int = 0, bank: int = 128
    ) -> None:
        self.frames, self.size = frames, size
        self._slots = [Slot(frames, size) for _ in range(count * SLOTS)]
        self._processes = [
            fork(_paint, self._slots[i::count], frames, size, seed + i, bank) for i in range(count)
        ]

    @contextmanager
    def ready(self) -> Iterator[list[Slot]]:
        """Give the slots whose clips are finished; they are painted over afterwards.

        Raises:
            RuntimeError: if all painters have died.
        """
        full = [slot for slot in self._slots if slot.full.item()]
        if not full and not any(process.is_alive() for process in self._processes):
            codes = [process.exitcode for process in self._processes]
            raise RuntimeError(
                f"all {len(codes)} painters of clips have ended (exit codes {codes}); what they "
                "printed above says why"
            )
        yield full
        for slot in full:
            slot.full.fill_(0)

    def stop(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


class Errand:
    """A function that runs in another process while this one goes on.

    Args:
        work: returns arrays.
        arguments: of it.
    """

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._result, end = multiprocessing.get_context("fork").Pipe(duplex=False)
        self._process = fork(_send, self._result, end, work, arguments)
        end.close()

    def result(self) -> Any:
        """Wait for what the function returns."""
        result = self._result.recv()
        self._process.join()
        return result


def fork(work: Callable[..., None], *arguments: Any) -> Any:
    """Start a process that ends with this one, and gives way to it on a busy machine."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_serve, args=(work, *arguments), daemon=True)
    process.start()
    return process


def _serve(work: Callable[..., None], *arguments: Any) -> None:
    os.nice(5)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    work(*arguments)


def _send(result: Any, end: Any, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    result.close()  # who reads is the parent alone, so that its end is noticed
    end.send(work(*arguments))


def _paint(slots: list[Slot], frames: int, size: int, seed: int, bank: int) -> None:
    """Fill slots in turn for ever."""
    parent = os.getppid()
    scenes = VideoScenes(seed=seed, bank=bank)
    for slot in itertools.cycle(slots):
        clip = scenes.clip(frames, size, hidden=hides_for(scenes, frames))
        while slot.full.item():
            if os.getppid() != parent:
                return
            time.sleep(PAUSE_S)
        slot.put(clip)
