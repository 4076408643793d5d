from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.masks.rle import coco_to_rle, mask_to_rle, rle_to_coco, rle_to_mask
from sam2_blocks.service.errors import RequestError
from sam2_blocks.service.track_frames import apply_frame, check_frame, to_tracked_rows
from sam2_blocks.testing import FakeTrackSession
from sam2_blocks.track_requests import TrackFrame
from sam2_blocks.values import Image, Rle
from tests.service.conftest import box, point

BRIGHT = Image(np.full((20, 30, 3), 255, np.uint8), "frame")
IMAGE = {"type": "base64", "value": "AAAA"}


def check(image=BRIGHT, *, known=(), image_hw=None, field="", **fields):
    frame = TrackFrame.model_validate({"image": image and IMAGE, **fields})
    return check_frame(frame, image, image_hw=image_hw, known=known, field=field)


def coco(hw=(20, 30)):
    mask = np.zeros(hw, bool)
    mask[2:5, 3:9] = True
    return dict(rle_to_coco(mask_to_rle(mask)))


def test_prompts_keep_their_order_and_ids():
    prompts = [{**box(1, 2, 9, 8), "tracker_id": 7}, {"mask": coco()}, {"points": [point(3, 4)]}]
    wanted = check(prompts=prompts)
    assert wanted.tracker_ids == (7, None, None)
    assert wanted.prompts[0].box_xyxy.tolist() == [1, 2, 9, 8]
    assert isinstance(wanted.prompts[1], Rle)
    assert wanted.prompts[2].point_coords.tolist() == [[3, 4]]
    assert wanted.count_new([7, 8]) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": None, "removals": [1]}, "image: this session has no frame yet"),
        ({"image_hw": (20, 31)}, "image: is 30x20, but the frames before it are 31x20"),
        ({"prompts": [box(90, 90, 99, 99)]}, r"prompts\[0\]: box"),
        ({"prompts": [box(1, 1, 5, 5), {"mask": coco((20, 31))}]}, r"prompts\[1\]: the mask is 31"),
        ({"prompts": [{"mask": {"size": [20, 30]}}]}, r"prompts\[0\]: a COCO RLE needs"),
        ({"removals": [5], "known": (1, 2)}, "removals: no object 5 is followed.*: 1, 2"),
        ({"removals": [1, 1], "known": (1,)}, "named more than once"),
        ({"corrections": [{"tracker_id": 5, **box(1, 1, 5, 5)}]}, "corrections: no object 5.*none"),
        (
            {"removals": [1], "known": (1,), "prompts": [{"tracker_id": 1, **box(1, 1, 5, 5)}]},
            r"tracker_id: \[1\] named more than once",
        ),
        (
            {"removals": [1], "known": (1,), "corrections": [{"tracker_id": 1, **box(1, 1, 5, 5)}]},
            "corrections: no object 1",
        ),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_done(given, message):
    with pytest.raises(RequestError, match=message):
        check(**given)


def test_messages_begin_with_the_frame():
    with pytest.raises(RequestError, match=r"^frames\[2\]\.removals: no object"):
        check(removals=[5], field="frames[2].")


def test_a_frame_is_taken_with_all_that_is_said_about_it():
    session = FakeTrackSession()
    apply_frame(session, check(prompts=[box(1, 1, 5, 5), box(10, 1, 20, 5)]))
    wanted = check(
        known=(1, 2),
        image_hw=BRIGHT.hw,
        removals=[1],
        prompts=[box(20, 10, 25, 15)],
        corrections=[{"tracker_id": 2, **box(11, 1, 21, 5)}],
    )
    tracks = apply_frame(session, wanted)
    assert tracks.tracker_id.tolist() == [2, 3]
    assert [boxes.tolist() for boxes in tracks.prediction.mask_box_xyxy] == [
        [11, 1, 20, 4],
        [20, 10, 24, 14],
    ]
    assert session.frames == ["frame", "frame"]


def test_without_an_image_it_is_about_the_frame_before():
    session = FakeTrackSession()
    apply_frame(session, check(prompts=[box(1, 1, 5, 5), box(10, 1, 20, 5)]))
    wanted = check(None, known=(1, 2), image_hw=BRIGHT.hw, removals=[1], prompts=[box(2, 2, 4, 4)])
    assert apply_frame(session, wanted).tracker_id.tolist() == [2, 3]
    assert session.frames == ["frame"]


@pytest.mark.parametrize("mask_format", ["json", "rle"])
def test_rows_say_which_object_and_how_it_is(mask_format):
    session = FakeTrackSession()
    tracks = session.step(BRIGHT, check(prompts=[box(1, 1, 5, 5)]).prompts)
    [row] = to_tracked_rows(tracks, mask_format)
    assert (row.tracker_id, row.object_score, row.state) == (1, 5, "new")
    if mask_format == "rle":
        assert rle_to_mask(coco_to_rle(row.masks)).sum() == 16
    else:
        assert row.masks == [[[1, 1], [1, 4], [4, 4], [4, 1]]]


def test_a_lost_object_has_an_empty_mask():
    session = FakeTrackSession()
    session.step(BRIGHT, check(prompts=[box(1, 1, 5, 5)]).prompts)
    tracks = session.step(Image(BRIGHT.pixels * 0, "dark"))
    [polygons], [rle] = to_tracked_rows(tracks, "json"), to_tracked_rows(tracks, "rle")
    assert (polygons.state, polygons.masks) == ("lost", [])
    assert not rle_to_mask(coco_to_rle(rle.masks)).any()
