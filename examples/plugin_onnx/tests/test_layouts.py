from __future__ import annotations

import numpy as np
import pytest
from sam2_blocks_onnx.layouts import reader_of

HW = (100, 200)
TWO_BOXES = np.array([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.25, 0.1, 0.1]]], np.float32)  # 0 to 1
CORNERS = [[80, 30, 120, 70], [40, 20, 60, 30]]


def read(outputs, threshold=0.3, **declared):
    reader = reader_of({name: array.shape for name, array in outputs.items()}, **declared)
    [found] = reader.read(outputs, HW, threshold)
    return [tuple(part.tolist()) for part in found]


def test_yolov5_certainty_is_of_any_object_times_the_class():
    rows = np.array([[[50, 40, 20, 10, 0.5, 0.9, 0.2], [9, 9, 2, 2, 0.2, 1, 1]]], np.float32)
    boxes, scores, class_ids = read({"out": rows}, layout="yolov5")
    assert (boxes, class_ids) == (([40, 35, 60, 45],), (0,))
    assert scores == pytest.approx((0.45,))


def test_yolov8_takes_the_best_class_of_each_box():
    columns = np.array([[50, 40, 20, 10, 0.2, 0.8], [9, 9, 2, 2, 0.9, 0.1]], np.float32).T[None]
    wide = np.concatenate([columns, np.zeros((1, 6, 6), np.float32)], axis=2)
    boxes, scores, class_ids = read({"out": wide})
    assert boxes == ([8, 8, 10, 10], [40, 35, 60, 45])  # the most certain first
    assert scores == pytest.approx((0.9, 0.8))
    assert class_ids == (0, 1)


def test_softmax_leaves_out_the_class_that_is_no_object():
    logits = np.log(np.array([[[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]]], np.float32))
    outputs = {"logits": logits, "pred_boxes": TWO_BOXES}
    boxes, scores, class_ids = read(outputs, class_names=("cat", "dog"), threshold=0.04)
    np.testing.assert_allclose(boxes, CORNERS, atol=1e-4)
    assert scores == pytest.approx((0.7, 0.05))
    assert class_ids == (0, 0)


def test_sigmoid_may_give_a_box_two_classes_and_another_none():
    logits = np.array([[[2.0, 1.5], [-3.0, -4.0]]], np.float32)
    outputs = {"dets": TWO_BOXES, "labels": logits}  # as RF-DETR calls them
    boxes, scores, class_ids = read(outputs, class_names=("cat", "dog"))
    np.testing.assert_allclose(boxes, [CORNERS[0]] * 2, atol=1e-4)
    assert scores == pytest.approx(1 / (1 + np.exp([-2.0, -1.5])))
    assert class_ids == (0, 1)


def test_both_of_two_outputs_may_have_four_columns():
    """Four classes: then the name says which are the boxes."""
    logits = np.array([[[9, -9, -9, -9], [-9, -9, -9, 9]]], np.float32)
    boxes, _, class_ids = read({"logits": logits, "pred_boxes": TWO_BOXES})
    np.testing.assert_allclose(boxes, CORNERS, atol=1e-4)
    assert class_ids == (0, 3)


def test_hidden_states_beside_boxes_and_logits_are_no_matter():
    """As `optimum` exports DETR."""
    outputs = {
        "logits": np.array([[[9, -9, -9], [-9, 9, -9]]], np.float32),
        "pred_boxes": TWO_BOXES,
        "last_hidden_state": np.zeros((1, 2, 256), np.float32),
        "encoder_last_hidden_state": np.zeros((1, 50, 256), np.float32),
    }
    _, _, class_ids = read(outputs)
    assert class_ids == (0, 1)


@pytest.mark.parametrize("huge", [1e5, -1e5])
def test_huge_logits_are_no_warning(huge):
    logits = np.full((1, 2, 3), huge, np.float32)
    _, scores, _ = read({"logits": logits, "boxes": TWO_BOXES}, threshold=0)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("shapes", "declared", "layout"),
    [
        ({"output0": (1, 84, 8400)}, {}, "yolov8"),
        ({"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}, {}, "yolov8"),
        ({"output0": (1, 25200, 85)}, {}, "yolov5"),
        ({"output0": (1, 25200, 6)}, {}, "yolov5"),
        ({"output0": (1, 300, 6)}, {}, "nms"),
        ({"output0": (1, 300, 38)}, {"has_nms": True}, "nms"),
        ({"output0": (1, 300, 84)}, {"class_names": tuple("abcdefgh" * 10)}, "detr"),
        ({"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, {}, "detr"),
        ({"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)}, {}, "boxes"),
    ],
)
def test_shapes_of_known_exporters_are_told_apart(shapes, declared, layout):
    assert reader_of(shapes, **declared).layout == layout


@pytest.mark.parametrize(
    ("shapes", "declared"),
    [
        ({"output0": (1, 300, 84)}, {}),
        ({"output0": (1, 300, 6)}, {"class_names": ("a", "b")}),
        ({"a": (1, 10, 20), "b": (1, 30, 40)}, {}),
        ({"a": (1, 1000)}, {}),
        ({}, {}),
    ],
)
def test_shapes_that_may_be_several_things_are_refused(shapes, declared):
    with pytest.raises(
        ValueError, match=r"do not say what they are\. Give 'layout', one of yolov8"
    ):
        reader_of(shapes, **declared)


@pytest.mark.parametrize(
    ("shapes", "layout"),
    [
        ({"output0": (1, 8400, 84)}, "yolov8"),
        ({"output0": (1, 300, 5)}, "yolov5"),
        ({"output0": (1, 1000)}, "nms"),
        ({"output0": (1, 84, 8400)}, "boxes"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(shapes, layout):
    with pytest.raises(ValueError, match=f"layout '{layout}' does not fit outputs output0"):
        reader_of(shapes, layout=layout)
