from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.formats.yolo import detections_to_yolo
from sam2_blocks.formats.yolo_lines import YoloLabels
from sam2_blocks.kinds import SAMPLE_HW
from sam2_blocks.testing import sample_detections


def test_boxes_of_masks_are_read_back(tmp_path):
    found = sample_detections()
    found.class_id = np.array([0, 1])
    (tmp_path / "a.txt").write_text(detections_to_yolo(found, (24, 32)))
    back = YoloLabels().load(tmp_path / "a.txt", SAMPLE_HW, ["face", "object"])
    assert back.data["class_name"].tolist() == ["face", "object"]
    assert np.allclose(back.xyxy, [[2, 3, 12, 15], [14, 5, 30, 20]], atol=1e-3)


def test_what_was_written_has_the_same_boxes_when_read(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(detections_to_yolo(sample_detections(), SAMPLE_HW, classes=["object", "face"]))
    found = YoloLabels().load(file, SAMPLE_HW, ["object", "face"])
    assert found.data["class_name"].tolist() == ["face", "object"]
    assert found.xyxy.round(2).tolist() == [[2, 3, 12, 15], [14, 5, 30, 20]]


def test_a_mask_without_pixels_has_no_line():
    found = sample_detections()
    found.mask[0] = False
    [line] = detections_to_yolo(found, SAMPLE_HW).splitlines()
    assert line.startswith("1 ")


def test_what_cannot_be_written_is_said():
    with pytest.raises(ValueError, match="mask 0 is a 'face', which 'classes' does not list"):
        detections_to_yolo(sample_detections(), SAMPLE_HW, classes=["cat"])
    with pytest.raises(ValueError, match="the masks are 32x24 pixels, their picture is 9x9"):
        detections_to_yolo(sample_detections(), (9, 9))
