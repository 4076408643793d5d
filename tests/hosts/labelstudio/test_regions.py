from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.hosts.labelstudio.config import read_config
from sam2_blocks.hosts.labelstudio.regions import (
    Found,
    mask_to_found,
    row_to_found,
    to_prediction,
    to_regions,
)
from sam2_blocks.masks.filling import polygons_to_rle
from sam2_blocks.masks.rle import mask_to_rle, rle_iou, rle_to_coco
from sam2_blocks.service.errors import RequestError
from tests.hosts.labelstudio.projects import PLAIN, config

HW = (20, 40)


def mask(*boxes):
    pixels = np.zeros(HW, bool)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = True
    return mask_to_rle(pixels)


def target(control):
    return read_config(config(control)).target()


def test_a_brush_is_one_region_of_the_tag():
    [region] = to_regions(mask_to_found(("cup",), mask((4, 2, 12, 10)), 0.5), target("BrushLabels"))
    assert len(region.pop("id")) == 10
    assert region.pop("value")["brushlabels"] == ["cup"]
    assert region == {
        "from_name": "mask",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": 40,
        "original_height": 20,
        "image_rotation": 0,
        "score": 0.5,
    }


def test_a_polygon_is_a_region_for_each_part():
    parts = [(4, 2, 12, 10), (20, 5, 40, 20)]
    found = mask_to_found(("cup",), mask(*parts), 0.5)
    regions = to_regions(found, target("PolygonLabels"))
    rings = [np.array(one["value"]["points"]) * [0.4, 0.2] for one in regions]
    assert rle_iou(polygons_to_rle(rings, HW), mask(*parts)) == 1
    assert len({one["id"] for one in regions}) == 2


def test_polygons_have_no_holes():
    pixels = np.zeros(HW, bool)
    pixels[2:18, 4:30] = True
    filled = mask_to_rle(pixels)
    pixels[8:12, 10:20] = False
    [region] = to_regions(
        mask_to_found(("cup",), mask_to_rle(pixels), 0.5), target("PolygonLabels")
    )
    ring = np.array(region["value"]["points"]) * [0.4, 0.2]
    assert rle_iou(polygons_to_rle([ring], HW), filled) == 1


def test_a_rectangle_ends_at_the_far_edge_of_the_last_pixel():
    found = mask_to_found(("cup",), mask((4, 2, 12, 20)), 0.5)
    [region] = to_regions(found, target("EllipseLabels"))
    assert region["value"] == {
        "x": 10,
        "y": 10,
        "width": 20,
        "height": 90,
        "rotation": 0,
        "rectanglelabels": ["cup"],
    }


def test_boxes_are_cut_at_the_border():
    found = Found((), HW, None, (-4, -4, 60, 10), 0.5)
    [region] = to_regions(found, target("EllipseLabels"))
    value = region["value"]
    assert [value[name] for name in ("x", "y", "width", "height")] == [0, 0, 100, 50]


def test_plain_tags_have_their_labels_beside_them():
    found = mask_to_found(("cup",), mask((4, 2, 12, 10)), 0.5)
    brush, said = to_regions(found, read_config(PLAIN).target())
    assert (brush["type"], said["type"], said["value"]["labels"]) == ("brush", "labels", ["cup"])
    assert brush["id"] == said["id"]
    assert "labels" not in brush["value"]
    unlabelled = to_regions(
        mask_to_found((), mask((4, 2, 12, 10)), 0.5), read_config(PLAIN).target()
    )
    assert len(unlabelled) == 1


def row(class_name="cup", rle=None, **fields):
    found = {} if rle is None else {"segmentation": rle_to_coco(rle)}
    return {"box_xyxy": [4.0, 2.0, 12.0, 10.0], "class_name": class_name, **found, **fields}


def test_rows_of_a_pipeline_are_objects():
    brush = target("BrushLabels")
    found = row_to_found(row(rle=mask((4, 2, 12, 10)), confidence=0.25), brush, HW)
    assert (found.labels, found.score, found.box_xyxy) == (("cup",), 0.25, (4, 2, 12, 10))
    assert row_to_found(row("object", confidence=0.25), brush, HW).labels == ()
    assert row_to_found(row("dog"), brush, HW) is None
    assert row_to_found(row(rle=mask((0, 0, 0, 0))), brush, HW) is None


def test_a_prediction_has_the_mean_score():
    found = [Found((), HW, None, (1, 2, 3, 4), score) for score in (0.5, 1.0, None)]
    made = to_prediction(found, target("EllipseLabels"), "v1")
    assert (made["score"], made["model_version"], len(made["result"])) == (0.75, "v1", 3)
    assert to_prediction([], target("BrushLabels"), "v1")["score"] == 0


@pytest.mark.parametrize("control", ["BrushLabels", "PolygonLabels"])
def test_boxes_are_no_masks(control):
    with pytest.raises(RequestError, match=r"boxes without masks\. Let it end in sam2/segment"):
        to_prediction([Found((), HW, None, (1, 2, 3, 4), 1)], target(control), "v1")


@pytest.mark.parametrize("text", [config(), config("PolygonLabels"), config("Ellipse"), PLAIN])
def test_the_sdk_finds_predictions_valid(text):
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface(text)
    found = [
        mask_to_found(("cup",), mask((4, 2, 12, 10), (20, 5, 40, 20)), 0.5),
        mask_to_found((), mask((0, 0, 40, 20)), 0.5),
    ]
    made = to_prediction(found, read_config(text).target(), "v1")
    assert interface.validate_prediction(made, return_errors=True) == []
