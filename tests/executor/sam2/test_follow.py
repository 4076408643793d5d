"""Objects that are computed together come out as if alone, in the order they were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.masks.rle import mask_to_rle
from sam2_blocks.values import Image, Prompt
from tests.executor.sam2.official_video import load_tracking

HW = (48, 64)
BOXES = [[4, 4, 20, 20], [30, 10, 50, 40], [8, 24, 24, 44], [2, 2, 60, 46]]
PROMPTS = [Prompt(box_xyxy=np.array(box, np.float32)) for box in BOXES]


@pytest.fixture(scope="module")
def executor(tmp_path_factory) -> Sam2Executor:
    return load_tracking("nano", tmp_path_factory.mktemp("nano"))


def frame(number: int) -> Image:
    return Image(np.random.default_rng(number).integers(0, 255, (*HW, 3), np.uint8))


def logits_of(executor: Sam2Executor, given: dict[int, list], frames: int = 10) -> list[dict]:
    """Track prompts given by frame: on each frame, logits by object."""
    found = []
    with executor.track() as session:
        for number in range(frames):
            wanted = given.get(number, [])
            tracks = session.step(frame(number), [p for _, p in wanted], [i for i, _ in wanted])
            logits = tracks.prediction.low_res_logits
            found.append(dict(zip(tracks.tracker_id.tolist(), logits, strict=True)))
    return found


def test_objects_in_one_batch_are_those_tracked_alone(executor):
    """Bit for bit, also those that were prompted on different frames and are read together."""
    mask = mask_to_rle(np.pad(np.ones((20, 20), bool), ((3, 25), (5, 39))))
    given = {
        0: [(0, PROMPTS[0]), (1, PROMPTS[1])],
        1: [(2, PROMPTS[2]), (3, mask)],
        3: [(4, PROMPTS[3])],
    }
    together = logits_of(executor, given)
    for number, wanted in given.items():
        for key, prompt in wanted:
            alone = logits_of(executor, {number: [(key, prompt)]})
            for index, (one, all_) in enumerate(zip(alone, together, strict=True)):
                assert key not in one or np.array_equal(one[key], all_[key]), (key, index)


def test_answers_come_in_the_order_of_prompts_of_any_shape(executor):
    follower = executor._follower
    embedding = executor._embed_frame(frame(0))
    click = Prompt(point_coords=np.array([[9, 9]], np.float32), point_labels=np.ones(1, np.int32))
    prompts = [PROMPTS[0], click, PROMPTS[1]]
    together = follower.start(embedding, prompts)
    for prompt, found in zip(prompts, together, strict=True):
        [alone] = follower.start(embedding, [prompt])
        assert np.array_equal(alone.logits, found.logits)
