"""A track is one annotation, with a mask for each frame it is seen on."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.errors import UsageError
from sam2_blocks.formats.youtube_vis import YoutubeVis, YoutubeVisWriter
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.rle import coco_to_rle, masks_to_prediction, rle_to_mask
from sam2_blocks.values import Image, VideoFrame

HW = (8, 10)


def frame(index: int, video: str = "a.mp4", hw=HW) -> Image:
    return Image(np.zeros((*hw, 3), np.uint8), f"{video}/{index}", video=VideoFrame(video, index))


def tracks(*columns: tuple[int, int], hw=HW):
    """Detections of (tracker id, column that is filled; -1 is none)."""
    masks = np.zeros((len(columns), *hw), bool)
    for row, (_, x) in enumerate(columns):
        if x >= 0:
            masks[row, 2:5, x] = True
    found = to_detections(masks_to_prediction(masks))
    found.tracker_id = np.array([key for key, _ in columns], int)
    found.data["class_name"] = np.array([f"kind {key}" for key, _ in columns], np.str_)
    return found


def test_tracks_of_two_videos():
    file = YoutubeVis()
    assert file.add(frame(0), tracks((4, 1), (7, 2))) == 2
    assert file.add(frame(1), tracks((4, -1), (7, 3))) == 1
    assert file.add(frame(0, "b.mp4"), tracks((4, 5))) == 1
    document = file.document()
    assert document["categories"] == [{"id": 1, "name": "kind 4"}, {"id": 2, "name": "kind 7"}]
    assert [video["name"] for video in document["videos"]] == ["a.mp4", "b.mp4"]
    assert document["videos"][0]["file_names"] == ["a.mp4/0", "a.mp4/1"]
    assert document["videos"][0]["length"] == 2
    first, second, third = document["annotations"]
    assert [row["track_id"] for row in (first, second, third)] == [4, 7, 4]
    assert [row["video_id"] for row in (first, second, third)] == [1, 1, 2]
    assert first["bboxes"] == [[1, 2, 1, 3], None]
    assert first["areas"] == [3, None]
    assert first["segmentations"][1] is None
    mask = rle_to_mask(coco_to_rle(second["segmentations"][1]))
    assert np.argwhere(mask).tolist() == [[2, 3], [3, 3], [4, 3]]


@pytest.mark.parametrize(
    ("image", "found", "message"),
    [
        (Image(np.zeros((*HW, 3), np.uint8), "p.png"), tracks(), "'p.png' is no frame of a video"),
        (frame(1, hw=(4, 4)), tracks(hw=(4, 4)), "has another size than those before it"),
    ],
)
def test_what_is_no_frame_of_it(image, found, message):
    file = YoutubeVis()
    file.add(frame(0), tracks())
    with pytest.raises(ValueError, match=message):
        file.add(image, found)


def test_detections_without_ids():
    found = tracks((1, 1))
    found.tracker_id = None
    with pytest.raises(ValueError, match="wants detections with tracker_id; make them with sam2"):
        YoutubeVis().add(frame(0), found)


NAMES = [f"{video}/{index}" for video in ("a.mp4", "b.mp4") for index in range(2)]


def write(path, wanted, *, crash=False, **options):
    """Write some of the frames, and perhaps stop without finishing."""
    writer = YoutubeVisWriter(path, **options)
    for name in wanted:
        video, index = name.split("/")
        writer.add(frame(int(index), video), tracks((4, int(index)), (7, 5)))
    if crash:
        writer._part.close()
    else:
        writer.finish()


@pytest.mark.parametrize("crash", [False, True])
def test_a_later_run_goes_on_with_what_is_kept(tmp_path, crash):
    """In the order of the run, whatever was done first, and after a crash too."""
    whole, resumed = tmp_path / "whole.json", tmp_path / "resumed.json"
    write(whole, NAMES)
    order = {name: place for place, name in enumerate(NAMES)}
    write(resumed, [*NAMES[2:], NAMES[0]], crash=crash)
    write(resumed, NAMES[:2], kept=NAMES[2:], order=order)
    assert resumed.read_text() == whole.read_text()
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("text", ["[]", "{", '{"categories": [], "videos": []}'])
def test_a_file_of_others_is_not_continued(tmp_path, text):
    path = tmp_path / "vis.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"vis\.json: cannot be continued: it is no YouTube-VIS"):
        YoutubeVisWriter(path, kept=["a.mp4/0"])
