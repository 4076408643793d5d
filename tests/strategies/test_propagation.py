"""Both ways from the prompted frames; the nearer prompt wins."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.clips import ClipPrompt
from sam2_blocks.errors import ImageError
from sam2_blocks.strategies.propagation import Propagation, propagate
from sam2_blocks.testing import FakeExecutor
from sam2_blocks.values import Image, Prompt

BOXES = {"left": [2, 2, 6, 6], "middle": [10, 2, 14, 6], "right": [20, 2, 24, 6]}


def at(frame: int, key: int, place: str) -> ClipPrompt:
    return ClipPrompt(frame, key, Prompt(box_xyxy=np.array(BOXES[place], np.float32)))


def run(prompts, count=8, dark=()):
    """What is found on each frame: the left edge of each object, by id, and its state."""

    def read(frame: int) -> Image:
        return Image(np.full((10, 30, 3), 0 if frame in dark else 200, np.uint8), str(frame))

    found = list(propagate(FakeExecutor(), read, count, prompts))
    assert len(found) == count
    return [
        {
            key: (int(box[0]), state)
            for key, box, state in zip(
                tracks.tracker_id.tolist(),
                tracks.prediction.mask_box_xyxy,
                tracks.state,
                strict=True,
            )
        }
        for tracks in found
    ]


def test_an_object_is_followed_both_ways():
    assert run([at(3, 1, "left")], count=5) == [
        {1: (2, "tracked")},
        {1: (2, "tracked")},
        {1: (2, "tracked")},
        {1: (2, "new")},
        {1: (2, "tracked")},
    ]


def test_frames_of_the_way_back_are_announced_in_its_order():
    class Sessions(FakeExecutor):
        def track(self, *settings):
            sessions.append(super().track(*settings))
            return sessions[-1]

    sessions, read = [], []

    def read_frame(place: int) -> Image:
        read.append(place)
        if place == 2:
            raise ImageError("damaged")
        return Image(np.full((10, 30, 3), 200, np.uint8), str(place))

    clip = Propagation(Sessions(), read_frame, 6, [at(5, 1, "left")])
    clip.prepare()
    [back] = sessions
    assert back.frames == back.expected == ["5", "4", "3", "1", "0"]
    assert read == [5, 4, 3, 2, 1, 0]
    assert clip.unread == {}
    clip.close()


def test_the_nearer_prompt_wins_for_each_object():
    prompts = [at(1, 1, "left"), at(6, 1, "right"), at(4, 2, "middle")]
    found = run(prompts)
    assert [frame[1][0] for frame in found] == [2, 2, 2, 2, 20, 20, 20, 20]
    assert [frame[2][0] for frame in found] == [10] * 8
    assert [frame[2][1] for frame in found].index("new") == 4


def test_what_is_not_seen_is_lost():
    found = run([at(2, 1, "left")], count=4, dark=(0, 3))
    assert [frame[1][1] for frame in found] == ["lost", "tracked", "new", "lost"]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "at least one prompt, got none"),
        ([at(8, 1, "left")], "object 1 is prompted on frame 8, but the clip has frames 0 to 7"),
        ([at(1, 1, "left"), at(1, 1, "right")], "an object is prompted twice on a frame"),
    ],
)
def test_prompts_that_mean_nothing(prompts, message):
    with pytest.raises(ValueError, match=message):
        run(prompts)
