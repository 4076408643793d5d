"""A clip is paths and numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_blocks.clips import Clip


def clip(frames) -> Clip:
    return Clip("a.mp4", Path("a.mp4"), frames)


def test_places_of_frames():
    assert len(clip(range(10, 30, 5))) == 4
    assert clip(range(10, 30, 5)).place_of(20) == 2
    assert clip((3, 4, 9)).place_of(9) == 2


def test_clips_can_be_told_apart():
    assert clip(range(3)) == clip(range(3))
    assert len({clip(range(3)), clip(range(3)), clip(range(4))}) == 2


@pytest.mark.parametrize(
    ("frames", "shown"),
    [(range(10, 30, 5), "10 to 25, every 5"), (range(3), "0 to 2"), ((7,), "7 to 7"), ((), "none")],
)
def test_a_frame_that_is_not_wanted(frames, shown):
    with pytest.raises(
        ValueError, match=rf"frame 99 is none of the clip 'a\.mp4'; it has {shown}$"
    ):
        clip(frames).place_of(99)
