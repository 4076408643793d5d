"""What is kept of an object is bounded, and a value."""

from __future__ import annotations

import pytest
import torch

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.sam2.memory import (
    FrameMemory,
    MemoryBounds,
    ObjectMemory,
    kept_bytes,
    memory_bounds,
)

BOUNDS = MemoryBounds(prompted=3, recent=2, pointers=4)


def frame(step: int) -> FrameMemory:
    return FrameMemory(step, torch.full((4, 2), float(step), dtype=torch.bfloat16), torch.zeros(8))


def steps(memory: ObjectMemory) -> tuple[list[int], list[int], list[int]]:
    return (
        [old.step for old in memory.prompted],
        [old.step for old in memory.recent],
        [step for step, _ in memory.pointers],
    )


def followed(count: int, bounds: MemoryBounds = BOUNDS) -> ObjectMemory:
    memory = ObjectMemory().add_prompted(frame(0), bounds)
    for step in range(1, count):
        memory = memory.add_tracked(frame(step), bounds)
    return memory


def test_the_last_frames_and_the_prompted_one_are_kept():
    assert steps(followed(9)) == ([0], [7, 8], [5, 6, 7, 8])


def test_bytes_do_not_grow():
    assert followed(9).nbytes == followed(900).nbytes == 3 * 4 * 2 * 2 + 5 * 8 * 4


def test_of_many_prompted_frames_the_first_and_the_newest_stay():
    memory = followed(4)
    for step in (4, 5, 6, 7):
        memory = memory.add_prompted(frame(step), BOUNDS)
    assert steps(memory) == ([0, 6, 7], [], [])


def test_one_prompted_frame_is_the_newest():
    only = MemoryBounds(prompted=1, recent=2, pointers=4)
    assert steps(followed(3, only).add_prompted(frame(3), only))[0] == [3]


def test_a_frame_prompted_again_is_replaced():
    memory = followed(3).add_prompted(frame(2), BOUNDS).add_prompted(frame(2), BOUNDS)
    assert steps(memory) == ([0, 2], [1], [1])


def test_memory_of_prompted_frames_alone():
    none = MemoryBounds(prompted=3, recent=0, pointers=4)
    assert steps(followed(6, none)) == ([0], [], [2, 3, 4, 5])


def test_adding_changes_no_value():
    before = followed(3)
    before.add_tracked(frame(3), BOUNDS)
    assert steps(before) == ([0], [1, 2], [1, 2])


@pytest.mark.parametrize("frames", [0, 2])
def test_memory_frames_beyond_the_model(frames, nano_without_memory):
    with pytest.raises(ValueError, match=f"memory_frames must be 1 to 1, .*; got {frames}"):
        memory_bounds(nano_without_memory, 4, frames)


def test_no_prompted_frames(nano_without_memory):
    with pytest.raises(ValueError, match="max_prompt_frames must be at least 1, got 0"):
        memory_bounds(nano_without_memory, 0, None)


def test_a_memory_that_works_in_another_way(nano_without_memory, monkeypatch):
    monkeypatch.setattr(nano_without_memory, "memory_temporal_stride_for_eval", 5)
    message = (
        "cannot track: its configuration has memory_temporal_stride_for_eval: 5, .* with 1 only"
    )
    with pytest.raises(ModelError, match=message):
        memory_bounds(nano_without_memory, 4, None)


def test_the_bound_that_is_stated(nano_without_memory):
    """16 x 16 places of 64 numbers a map, 128 numbers a pointer."""
    bounds = memory_bounds(nano_without_memory, 4, None)
    assert kept_bytes(nano_without_memory, bounds) == 4 * 16 * 16 * 64 * 2 + (4 + 15) * 128 * 4


@pytest.fixture
def nano_without_memory(nano):
    network = nano.model.network
    before = network.num_maskmem
    network.num_maskmem = 1
    yield network
    network.num_maskmem = before
