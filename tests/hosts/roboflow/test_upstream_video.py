"""What Roboflow's own tests of its SAM 2 video block expect, asked of ours.

Source: roboflow/inference, ``tests/workflows/unit_tests/core_steps``:
``models/foundation/test_segment_anything2_video.py`` and
``dependent_resources/test_segment_anything2{,_video}.py``; the same inputs and expectations,
written anew. What differs is in ``docs/coming-from/roboflow.md``.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.testing import FakeExecutor, FakeTrackSession
from tests.hosts.roboflow.conftest import IGNORED

pytestmark = pytest.mark.filterwarnings(IGNORED)

HW = (120, 160)
STEP = {"type": "sam2_blocks/track@v1", "name": "sam2_video_step", "images": "$inputs.image"}
SEGMENT = {"type": "sam2_blocks/segment@v1", "name": "segmenter", "images": "$inputs.image"}


class Session(FakeTrackSession):
    """Notes what it is asked for, and answers with a pixel an object."""

    def __init__(self, calls, *settings):
        super().__init__(*settings)
        self._calls = calls
        self._has_state = False

    def step(self, image, prompts=None, tracker_ids=None):
        self._calls.append(("prompt" if prompts else "track", self._has_state))
        self._has_state |= bool(prompts)
        return super().step(image, prompts, tracker_ids)

    def prompt(self, prompts, tracker_ids=None):
        if self._has_state and prompts and self._calls[-1][0] == "track":
            self._calls[-1] = ("prompt", True)
        return super().prompt(prompts, tracker_ids)


class Executor(FakeExecutor):
    def __init__(self):
        super().__init__()
        self.calls = []

    def track(self, *settings):
        return Session(self.calls, *settings)


@pytest.fixture
def executor():
    return Executor()


@pytest.fixture
def block(engine_class, executor):
    """``block(frame_number, …)``: our block on one frame, with theirs' arguments."""
    made = block_named("Sam2_Blocks_Track_V1Block")(Resources({"sam2": lambda *_, **__: executor}))

    def run(frame_number, *, video="stream-0", boxes=True, **params):
        given = {"prompt": "first_frame", "prompt_every": 30, "min_confidence": 0.0, **params}
        [result] = run_on(made, frame(video, frame_number), person() if boxes else None, given)
        return result["predictions"]

    return run


def run_on(block, picture, boxes, params):
    from roboflow_workflows.execution_engine.entities.base import Batch

    images = Batch.init(content=[picture], indices=[(0,)])
    found = None if boxes is None else Batch.init(content=[boxes], indices=[(0,)])
    return block.run(image=images, boxes=found, model="sam2video/small", lost="drop", **params)


def block_named(name):
    from sam2_blocks.hosts import roboflow

    return next(block for block in roboflow.load_blocks() if block.__name__ == name)


def frame(video, number):
    from roboflow_workflows.execution_engine.entities.base import (
        ImageParentMetadata,
        VideoMetadata,
        WorkflowImageData,
    )

    return WorkflowImageData(
        parent_metadata=ImageParentMetadata(parent_id=f"{video}:{number}"),
        numpy_image=np.full((*HW, 3), 9, np.uint8),
        video_metadata=VideoMetadata(
            video_identifier=video,
            frame_number=number,
            fps=30,
            frame_timestamp=datetime(2024, 1, 1, 0, 0, number),
        ),
    )


def person():
    boxes = sv.Detections(
        np.array([[10, 20, 80, 90]], np.float32), None, np.array([0.95]), np.array([0])
    )
    boxes.data["class_name"] = np.array(["person"], object)
    boxes.data["detection_id"] = np.array(["det-0"], object)
    return boxes


def kinds(executor):
    return [kind for kind, _ in executor.calls]


def manifest(engine_class, name):
    return block_named(f"{name}Block").get_manifest()


def test_a_valid_step_has_their_defaults(engine_class):
    track = manifest(engine_class, "Sam2_Blocks_Track_V1")
    made = track.model_validate({**STEP, "prompt_mode": "first_frame"})
    assert (made.prompt, made.prompt_every) == ("first_frame", 30)
    plain = track.model_validate(STEP)
    assert (plain.prompt, plain.model) == ("first", "hiera_small")


def test_an_unknown_prompt_mode_is_refused(engine_class):
    track = manifest(engine_class, "Sam2_Blocks_Track_V1")
    with pytest.raises(ValueError, match="'first_frame', 'every_n_frames' or 'every_frame'"):
        track.model_validate({**STEP, "prompt_mode": "nonsense"})


def test_steps_run_in_this_process_whatever_mode_the_engine_is_in(engine_class):
    """Theirs asks for the mode, and refuses the remote one when it runs."""
    track = block_named("Sam2_Blocks_Track_V1Block")
    assert track.get_init_parameters() == ["resources"]


def test_first_frame_prompts_once_then_tracks(block, executor):
    for number in range(3):
        found = block(number)
        assert isinstance(found, sv.Detections)
        assert found.tracker_id.tolist() == [1]  # theirs begin with 0
        assert found.data["class_name"].tolist() == ["person"]
    assert kinds(executor) == ["prompt", "track", "track"]


def test_every_n_frames_prompts_on_every_nth(block, executor):
    for number in range(8):
        block(number, prompt="every_n_frames", prompt_every=3)
    # Theirs tracks three frames between two prompts.
    assert kinds(executor) == ["prompt", "track", "track"] * 2 + ["prompt", "track"]


def test_every_frame_prompts_every_frame(block, executor):
    for number in range(3):
        block(number, prompt="every_frame")
    assert kinds(executor) == ["prompt"] * 3


@pytest.mark.filterwarnings("ignore:video 'stream-0'")
def test_a_stream_that_restarts_is_a_new_session(block, executor):
    for number in (5, 6, 0):
        block(number)
    assert executor.calls == [("prompt", False), ("track", True), ("prompt", False)]


def test_state_goes_from_frame_to_frame(block, executor):
    for number in range(3):
        block(number)
    assert [has_state for _, has_state in executor.calls] == [False, True, True]


def test_streams_have_sessions_of_their_own(block, executor):
    for video, number in (("A", 0), ("B", 0), ("A", 1)):
        block(number, video=video)
    assert executor.calls == [("prompt", False), ("prompt", False), ("track", True)]


def test_a_detector_that_found_nothing_yet_gives_no_detections(block, executor):
    made = block_named("Sam2_Blocks_Track_V1Block")(Resources({"sam2": lambda *_, **__: executor}))
    [result] = run_on(made, frame("stream-0", 0), sv.Detections.empty(), {"prompt": "first_frame"})
    found = result["predictions"]
    assert isinstance(found, sv.Detections)
    assert len(found) == 0
    assert kinds(executor) == ["track"]


@pytest.mark.parametrize(
    ("name", "step", "model"),
    [
        ("Sam2_Blocks_Segment_V1", SEGMENT, "hiera_tiny"),
        ("Sam2_Blocks_Segment_V1", {**SEGMENT, "version": "hiera_large"}, "hiera_large"),
        ("Sam2_Blocks_Segment_V1", {**SEGMENT, "version": "$inputs.variant"}, "$inputs.variant"),
        ("Sam2_Blocks_Track_V1", STEP, "hiera_small"),
        ("Sam2_Blocks_Track_V1", {**STEP, "model_id": "sam2video/tiny"}, "hiera_tiny"),
    ],
)
def test_the_model_of_a_step_is_told_to_the_engine(engine_class, name, step, model):
    [needed] = manifest(engine_class, name).model_validate(step).discover_dependent_resources()
    assert needed.metadata.model_id == model
    assert needed.metadata.provider == "sam2_blocks"
