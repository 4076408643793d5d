"""`sam2/track@v1` in the engine: frames of videos, and what their own block of videos takes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import get_args

import numpy as np
import pytest

from sam2_blocks.engine.resources import Resources
from sam2_blocks.executor import load
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.prompts import PromptSet
from sam2_blocks.testing import FakeExecutor
from sam2_blocks.values import Image
from tests.hosts.roboflow.conftest import HW, IGNORED, detector_output, picture, resources_of
from tests.hosts.roboflow.theirs import tracks_of_theirs

pytestmark = pytest.mark.filterwarnings(IGNORED)

THEIRS = {
    "type": "roboflow_core/segment_anything_2_video@v1",
    "name": "track",
    "images": "$inputs.image",
    "boxes": "$inputs.boxes",
    "model_id": "sam2video/small",
    "prompt_mode": "first_frame",
    "prompt_interval": 30,
    "threshold": 0.1,
}
TRACK = {**THEIRS, "type": "sam2_blocks/track@v1"}
TRACKS = {"predictions": "$steps.track.predictions"}
BRIGHT = np.full((*HW, 3), 200, np.uint8)


class Models(Resources):
    """One executor for all models; remembers which were asked for."""

    def __init__(self):
        self.asked = []
        self.made = FakeExecutor()
        super().__init__(dict.fromkeys(("sam2", "fake"), self._note))

    def _note(self, model, **_):
        self.asked.append(model)
        return self.made


@pytest.fixture
def track(start):
    """``track(resources, field=value)``: a workflow of one step."""

    def compile_workflow(resources=None, outputs=TRACKS, without=(), **fields):
        step = {name: value for name, value in {**TRACK, **fields}.items() if name not in without}
        return start([step], outputs, resources=resources or Models())

    return compile_workflow


def frame(number, video="street", pixels=BRIGHT):
    """A frame as `InferencePipeline` hands it over."""
    from roboflow_workflows.execution_engine.entities.base import VideoMetadata

    metadata = VideoMetadata(
        video_identifier=video,
        frame_number=number,
        frame_timestamp=datetime(2026, 1, 1) + timedelta(seconds=number / 25),
        fps=25,
        comes_from_video_file=True,
    )
    return {"type": "numpy_object", "value": pixels, "video_metadata": metadata}


def run(engine, frames, boxes, *, serialize=False):
    inputs = {"image": frames, "boxes": boxes}
    found = engine.run(runtime_parameters=inputs, serialize_results=serialize)
    return [result["predictions"] for result in found]


def ids(found):
    return found.tracker_id.tolist()


@pytest.mark.parametrize("prompt_mode", ["first_frame", "every_n_frames", "every_frame"])
def test_every_step_of_theirs_becomes_ours_by_its_type_alone(track, prompt_mode):
    models = Models()
    engine = track(models, prompt_mode=prompt_mode)
    for number in range(1, 4):
        [found] = run(engine, [frame(number)], [detector_output(2)])
        assert ids(found) == [1, 2]
        assert found.mask.shape == (2, *HW)
        assert found.data["class_name"].tolist() == ["class-0", "class-1"]
        assert np.allclose(found.confidence, [0.5, 0.6])
    assert models.asked == ["hiera_small"]


def test_their_defaults_are_ours(track):
    models = Models()
    names = ("model_id", "prompt_mode", "prompt_interval", "threshold")
    [found] = run(track(models, without=names), [frame(1)], [detector_output(1)])
    assert ids(found) == [1]
    assert models.asked == ["hiera_small"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("sam2video/tiny", "hiera_tiny"),
        ("sam2video/small", "hiera_small"),
        ("sam2video/base-plus", "hiera_b_plus"),
        ("sam2video/large", "hiera_large"),
        ("nano", "nano"),
    ],
)
def test_their_models_are_ours(track, theirs, ours):
    models = Models()
    run(track(models, model_id=theirs), [frame(1)], [detector_output(1)])
    assert models.asked == [ours]


def test_every_field_and_value_of_theirs_is_known(engine_class):
    from roboflow_workflows.core_steps.models.foundation.segment_anything2_video import v1

    from sam2_blocks.engine.plugins import load_plugins

    theirs = v1.BlockManifest
    overrides = load_plugins(points=[]).manifests["sam2/track@v1"].for_host("roboflow")
    known = {"type", "name", "boxes"} | {
        alias for aliases in overrides.aliases.values() for alias in aliases
    }
    assert set(theirs.model_fields) <= known
    modes = get_args(theirs.model_fields["prompt_mode"].annotation)
    assert set(overrides.values["prompt"]) == set(modes)
    models = set(theirs.get_supported_model_variants())
    assert models - set(overrides.values["model"]) == {"sam3trackervideo"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt_mode", "first", None),
        ("prompt_mode", "sometimes", "'first_frame', 'every_n_frames' or 'every_frame'"),
        ("model_id", "sam3trackervideo", "sam3trackervideo"),
        ("threshold", 2, "less than or equal to 1"),
    ],
)
def test_what_is_wrong_is_found_at_compilation(track, field, value, message):
    from roboflow_workflows.errors import WorkflowSyntaxError

    if message is None:
        assert track(**{field: value})
        return
    with pytest.raises(WorkflowSyntaxError) as caught:
        track(**{field: value})
    assert message in str(caught.value.inner_error)


def test_values_of_theirs_may_come_with_the_run(start):
    models = Models()
    inputs = [
        {"type": "WorkflowImage", "name": "image"},
        {"type": "WorkflowBatchInput", "name": "boxes", "kind": ["object_detection_prediction"]},
        {"type": "WorkflowParameter", "name": "model"},
        {"type": "WorkflowParameter", "name": "every"},
    ]
    step = {**TRACK, "model_id": "$inputs.model", "prompt_interval": "$inputs.every"}
    engine = start([step], TRACKS, inputs=inputs, resources=models)
    given = {"image": [frame(1)], "boxes": [detector_output(1)], "every": 5}
    engine.run(runtime_parameters={**given, "model": "sam2video/base-plus"})
    assert models.asked == ["hiera_b_plus"]


def test_first_frame_waits_for_a_frame_with_boxes(track):
    engine = track()
    given = [detector_output(0), detector_output(1), detector_output(3)]
    frames = [frame(number) for number in (1, 2, 3)]
    found = [run(engine, [one], [boxes])[0] for one, boxes in zip(frames, given, strict=True)]
    assert [ids(one) if len(one) else [] for one in found] == [[], [1], [1]]


@pytest.mark.parametrize("prompt_mode", ["every_n_frames", "every_frame"])
def test_ids_do_not_restart_when_boxes_prompt_again(track, prompt_mode):
    engine = track(prompt_mode=prompt_mode, prompt_interval=2)
    late = detector_output(3)
    late["predictions"] = late["predictions"][1:]  # the first object has gone, another has come
    found = [
        run(engine, [frame(number)], [boxes])[0]
        for number, boxes in ((1, detector_output(2)), (2, detector_output(2)), (3, late))
    ]
    assert [ids(one) for one in found] == [[1, 2], [1, 2], [1, 2, 3]]
    assert found[2].data["class_name"].tolist() == ["class-0", "class-1", "class-2"]


def test_an_interval_is_as_long_as_it_says(track):
    engine = track(prompt_mode="every_n_frames", prompt_interval=2)
    more = [detector_output(count) for count in (1, 2, 3, 4)]
    found = [run(engine, [frame(n)], [boxes])[0] for n, boxes in enumerate(more, 1)]
    assert [ids(one) for one in found] == [[1], [1], [1, 2, 3], [1, 2, 3]]


def test_without_boxes_everything_is_followed(track):
    engine = track(without=["boxes"], points_per_side=2, stability_score_thresh=0)
    inputs = {"image": [frame(1)], "boxes": [detector_output(0)]}
    [result] = engine.run(runtime_parameters=inputs)
    assert ids(result["predictions"]) == [1, 2, 3, 4]


def test_two_videos_may_be_mixed_in_one_batch(track):
    models = Models()
    engine = track(models)
    frames = [frame(1, "a"), frame(1, "b"), frame(2, "a"), frame(2, "b")]
    none, one, two = (detector_output(count) for count in (0, 1, 2))
    found = run(engine, frames, [two, one, none, none])
    assert [ids(each) for each in found] == [[1, 2], [1], [1, 2], [1]]
    found = run(engine, [frame(3, "b"), frame(3, "a")], [none, none])
    assert [ids(each) for each in found] == [[1], [1, 2]]


@pytest.mark.filterwarnings("ignore:video 'street'")
def test_a_video_that_begins_anew_is_prompted_anew(track):
    engine = track()
    run(engine, [frame(1)], [detector_output(1)])
    run(engine, [frame(2)], [detector_output(2)])
    [found] = run(engine, [frame(1)], [detector_output(2)])
    assert len(found) == 2


def test_threshold_is_one_of_the_detectors_confidence(track):
    [found] = run(track(threshold=0.55), [frame(1)], [detector_output(2)])
    assert (ids(found), found.data["class_name"].tolist()) == ([2], ["class-1"])


def test_an_object_that_is_lost_is_not_among_the_predictions(track):
    engine = track()
    run(engine, [frame(1)], [detector_output(1)])
    [found] = run(engine, [frame(2, pixels=BRIGHT * 0)], [detector_output(0)])
    assert len(found) == 0
    assert found.mask.shape == (0, *HW)
    [found] = run(engine, [frame(3)], [detector_output(0)])
    assert ids(found) == [1]


def test_a_picture_that_is_no_frame_says_so(track):
    from roboflow_workflows.errors import StepExecutionError

    with pytest.raises(StepExecutionError, match=r"is no frame of a video\. Give"):
        run(track(), [{"type": "numpy_object", "value": BRIGHT}], [detector_output(1)])


def test_columns_are_those_of_theirs_and_json_has_tracker_ids(track):
    engine = track()
    [found] = run(engine, [frame(1)], [detector_output(2)])
    theirs = tracks_of_theirs(found, BRIGHT)
    assert set(found.data) == set(theirs.data)
    assert np.array_equal(found.mask, theirs.mask)
    assert np.allclose(found.xyxy, theirs.xyxy)
    assert found.tracker_id.tolist() == theirs.tracker_id.tolist()
    for name in ("class_name", "parent_id", "prediction_type", "root_parent_id"):
        assert found.data[name].tolist() == theirs.data[name].tolist(), name
    [written] = run(engine, [frame(2)], [detector_output(2)], serialize=True)
    assert [row["tracker_id"] for row in written["predictions"]] == [1, 2]
    assert [row["class"] for row in written["predictions"]] == ["class-0", "class-1"]


def test_more_columns_where_they_are_asked_for(track):
    outputs = {name: f"$steps.track.{name}" for name in ("predictions", "new", "ended")}
    engine = track(outputs=outputs, extra_columns=True)
    inputs = {"image": [frame(1)], "boxes": [detector_output(1)]}
    [result] = engine.run(runtime_parameters=inputs)
    assert result["predictions"].data["track_state"].tolist() == ["new"]
    assert result["predictions"].data["object_score"].tolist() == [5]
    assert (ids(result["new"]), len(result["ended"])) == ([1], 0)


def test_equal_runs_give_equal_ids_and_no_two_frames_share_one(track):
    runs = []
    for _ in range(2):
        engine = track()
        found = [run(engine, [frame(n)], [detector_output(2)])[0] for n in (1, 2)]
        runs.append([one.data["detection_id"].tolist() for one in found])
    assert runs[0] == runs[1]
    assert len({one for frame_ids in runs[0] for one in frame_ids}) == 4


def test_their_blocks_take_the_tracks(start):
    zone = [[0, 0], [HW[1], 0], [HW[1], HW[0]], [0, HW[0]]]
    steps = [
        TRACK,
        {
            "type": "roboflow_core/time_in_zone@v3",
            "name": "time",
            "image": "$inputs.image",
            "detections": "$steps.track.predictions",
            "zone": zone,
            "triggering_anchor": "CENTER",
            "remove_out_of_zone_detections": True,
            "reset_out_of_zone_detections": True,
        },
        {
            "type": "roboflow_core/trace_visualization@v1",
            "name": "trace",
            "image": "$inputs.image",
            "predictions": "$steps.track.predictions",
        },
    ]
    outputs = {"predictions": "$steps.time.timed_detections", "trace": "$steps.trace.image"}
    engine = start(steps, outputs, resources=Models())
    found = [run(engine, [frame(n)], [detector_output(2)])[0] for n in (1, 26)]
    assert found[1].data["time_in_zone"].tolist() == [1, 1]


def test_on_a_cpu_it_gives_the_tracks_of_the_library(track):
    nano = load("nano", device="cpu", seed=3)
    pixels = [picture(seed) for seed in (1, 2)]
    boxes = [[40, 45, 80, 75], [70, 65, 110, 95]]
    with nano.track() as session:
        first = session.step(_rgb(pixels[0]), PromptSet.from_boxes(boxes))
        second = session.step(_rgb(pixels[1]))
    engine = track(resources_of(nano)[0], model_id="nano")
    for number, (bgr, expected) in enumerate(zip(pixels, (first, second), strict=True), 1):
        [found] = run(engine, [frame(number, pixels=bgr)], [detector_output(2)])
        wanted = expected.select(np.flatnonzero(np.array(expected.state) != "lost"))
        assert ids(found) == wanted.tracker_id.tolist()
        masks = [rle_to_mask(rle) for rle in wanted.prediction.rles]
        assert np.array_equal(found.mask, masks)


def _rgb(bgr):
    return Image(np.ascontiguousarray(bgr[:, :, ::-1]), "image")
