"""Run in the environment of the hosts, too, which has the library; see .ci/run."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import supervision as sv

from sam2_blocks import Item, PipelineError, Runner, StepError, load_pipeline
from sam2_blocks.values import Image, VideoFrame

STEP = {
    "use": "track/boxes@v1",
    "with": {"image": "$inputs.image", "detections": "$inputs.found"},
}


@pytest.fixture
def library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies are deprecated to each other
        return pytest.importorskip("trackers", exc_type=ImportError)


@pytest.fixture
def track(plugins):
    """Run frames through one step: ``track([(video, index, detections), …], **params)``."""

    def run(frames, **params):
        step = {**STEP, "with": {**STEP["with"], **params}}
        document = {
            "pipeline_version": 1,
            "inputs": {
                "image": {"kind": "image"},
                "found": {"kind": "object_detection_prediction"},
            },
            "steps": {"track": step},
            "outputs": {name: f"$steps.track.{name}" for name in ("detections", "new", "seen")},
        }
        pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
        items = []
        for number, (video, index, found) in enumerate(frames):
            where = None if video is None else VideoFrame(video, index)
            image = Image(np.zeros((200, 300, 3), np.uint8), f"{number}", video=where)
            items.append(Item(str(number), {"image": image, "found": found}))
        with Runner(pipeline, plugins) as runner:
            return list(runner.run(items))

    return run


def boxes(*corners, confidence=0.9):
    xyxy = np.array([[x, y, x + 40, y + 40] for x, y in corners], np.float32).reshape(-1, 4)
    return sv.Detections(
        xyxy,
        confidence=np.full(len(xyxy), confidence, np.float32),
        class_id=np.arange(len(xyxy)),
        data={"class_name": np.array(["a", "b", "c"][: len(xyxy)], np.str_)},
    )


def ids(result, name="detections"):
    return result.outputs[name].tracker_id.tolist()


@pytest.mark.parametrize("tracker", ["bytetrack", "ocsort", "sort"])
def test_ids_stay_with_what_moves(library, track, tracker):
    frames = [("clip", i, boxes((10 + 4 * i, 10), (200 - 4 * i, 100))) for i in range(6)]
    results = track(frames, tracker=tracker)
    assert all(not result.errors for result in results)
    found = [ids(result) for result in results[2:]]
    assert found == [found[0]] * 4
    assert len(set(found[0]) - {-1}) == 2


def test_new_ones_are_told_from_those_seen_before(library, track):
    frames = [("clip", i, boxes((10, 10))) for i in range(3)]
    frames += [("clip", i, boxes((200, 100), (10, 10))) for i in range(3, 6)]
    results = track(frames)
    for name, expected in (("new", 2), ("seen", 1 + 3 + 1)):
        assert sum(len(result.outputs[name]) for result in results) == expected
    last = results[-1].outputs["detections"]
    assert last.xyxy[:, 0].tolist() == [200, 10], "rows keep their order"
    assert last.data["class_name"].tolist() == ["a", "b"]


def test_what_has_no_track_yet_has_no_id(library, track):
    results = track([("clip", i, boxes((10, 10))) for i in range(4)], min_frames=3)
    assert [ids(result) == [-1] for result in results] == [True, True, False, False]
    assert [len(result.outputs["new"]) for result in results] == [0, 0, 1, 0]
    assert [len(result.outputs["seen"]) for result in results] == [0, 0, 0, 1]


def test_each_video_has_its_own_state(library, track):
    frames = []
    for index in range(3):
        frames += [("one", index, boxes((10, 10))), ("two", index, boxes((200, 100)))]
    results = track(frames)
    assert ids(results[-1]) == ids(results[-2])
    assert [len(result.outputs["new"]) for result in results] == [0, 0, 1, 1, 0, 0]


def test_a_number_that_falls_begins_anew(library, track):
    frames = [("clip", index, boxes((10, 10))) for index in (5, 6, 0, 1)]
    assert [len(result.outputs["new"]) for result in track(frames)] == [0, 1, 0, 1]


def test_frames_without_detections_are_frames(library, track):
    found = [boxes((10, 10)), boxes((10, 10)), boxes(), boxes((10, 10))]
    results = track([("clip", index, of) for index, of in enumerate(found)])
    assert [len(result.outputs["detections"]) for result in results] == [1, 1, 0, 1]
    assert ids(results[3]) == ids(results[1]) != [-1]


def test_a_picture_that_is_no_frame_is_refused(track):
    [result] = track([(None, 0, boxes((10, 10)))])
    assert "picture '0' is no frame of a video" in result.errors[0].message


def test_without_the_library_the_extra_is_named(track, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(StepError, match=r"pip install 'sam2-blocks\[trackers\]'"):
        track([("clip", 0, boxes((10, 10)))])


def test_a_missing_library_is_found_with_the_pipeline(plugins, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, "found": {"kind": "object_detection_prediction"}},
        "steps": {"track": STEP},
        "outputs": {"tracked": "$steps.track.detections"},
    }
    with pytest.raises(PipelineError, match=r"pip install 'sam2-blocks\[trackers\]'"):
        plugins.load_pipeline(document)
