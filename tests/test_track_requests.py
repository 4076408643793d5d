from __future__ import annotations

import pytest
from pydantic import ValidationError

from sam2_blocks.options import TrackSettings
from sam2_blocks.track_requests import (
    TrackCorrection,
    TrackFramesRequest,
    TrackPrompt,
    TrackRequest,
)

BOX = {"box": {"x": 4, "y": 4, "width": 4, "height": 4}}
IMAGE = {"type": "base64", "value": "AAAA"}
MASK = {"size": [2, 2], "counts": [1, 3]}


@pytest.mark.parametrize("prompts", [[BOX], BOX, {"prompts": [BOX]}])
def test_prompts_are_read_in_every_form_of_a_segmentation(prompts):
    [frame] = TrackFramesRequest(image=IMAGE, prompts=prompts).all_frames()
    assert [prompt.box.x for prompt in frame.prompts] == [4]
    assert frame.image.value == "AAAA"


@pytest.mark.parametrize("prompts", [None, [], {}, {"prompts": None}])
def test_there_may_be_no_prompts(prompts):
    [frame] = TrackFramesRequest(image=IMAGE, prompts=prompts).all_frames()
    assert frame.prompts == []


def test_older_points_are_read():
    prompt = TrackPrompt.model_validate({"point_coords": [[1, 2]], "point_labels": [0]})
    assert [point.to_hashable() for point in prompt.points] == [(1, 2, False)]


def test_several_frames_are_a_list():
    request = TrackFramesRequest(frames=[{"image": IMAGE}, {"removals": [3]}])
    assert [frame.removals for frame in request.all_frames()] == [[], [3]]


def test_a_session_may_begin_without_a_frame():
    assert TrackRequest().all_frames() == []


def test_settings_are_ours():
    request = TrackRequest(max_prompt_frames=2, memory_frames=3, non_overlap=True)
    assert request.to_settings() == TrackSettings(2, 3, True, 0.0)
    assert TrackRequest().to_settings() == TrackSettings()


def test_a_session_keeps_no_image():
    request = TrackRequest(image=IMAGE, prompts=[BOX], format="rle", removals=[1])
    kept = request.without_frames()
    assert (kept.all_frames(), kept.format, kept.id) == ([], "rle", request.id)


@pytest.mark.parametrize(
    ("entity", "fields", "message"),
    [
        (TrackPrompt, {"tracker_id": 1}, "a prompt needs a box or points"),
        (TrackPrompt, {"points": []}, "a prompt needs a box, at least one point, or a mask"),
        (TrackPrompt, {**BOX, "mask": MASK}, "give mask, or box, not both"),
        (TrackPrompt, {"masks": MASK, **BOX}, "Did you mean 'mask'"),
        (TrackPrompt, {"mask": MASK, "traker_id": 1}, "Did you mean 'tracker_id'"),
        (TrackPrompt, {**BOX, "tracker_id": -1}, "greater than or equal to 0"),
        (TrackCorrection, BOX, "tracker_id\n.*Field required"),
        (TrackFramesRequest, {}, "give a frame: image, prompts, corrections or removals"),
        (TrackFramesRequest, {"frames": []}, "give a frame: image, prompts"),
        (TrackFramesRequest, {"frames": [{}]}, "a frame needs an image, or prompts"),
        (
            TrackFramesRequest,
            {"frames": [{"image": IMAGE}], "prompts": [BOX]},
            "put image, prompts, corrections and removals inside of frames",
        ),
        (TrackFramesRequest, {"image": IMAGE, "format": "binary"}, "'json' or 'rle'"),
        (TrackRequest, {"max_prompt_frames": 33}, "less than or equal to 32"),
        (TrackRequest, {"mask_threshold": float("inf")}, "finite number"),
    ],
)
def test_what_cannot_be_understood_is_refused(entity, fields, message):
    with pytest.raises(ValidationError, match=message):
        entity.model_validate(fields)
