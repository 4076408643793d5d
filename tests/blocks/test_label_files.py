"""``export/yolo@v1`` and ``export/labelme@v1``."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks import Item, Runner
from sam2_blocks.engine.resources import Resources
from sam2_blocks.formats.rows import load_yolo
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.polygons import polygons_to_rle
from sam2_blocks.masks.rle import mask_to_rle, masks_to_prediction
from sam2_blocks.testing import run_block
from sam2_blocks.values import Image

HW = (40, 60)


@pytest.fixture
def mask():
    """Two parts, the larger one with a hole."""
    mask = np.zeros(HW, bool)
    mask[4:24, 10:40] = True
    mask[10:14, 20:28] = False
    mask[30:36, 5:9] = True
    return mask


@pytest.fixture
def export(plugins, tmp_path):
    """Run a block on masks of the picture ``deep/a.png``: its result."""

    def run(block, *masks, class_names=("face",), class_ids=(7,), **params):
        found = to_detections(masks_to_prediction(np.array(masks, bool).reshape(-1, *HW)))
        found.class_id = np.array(class_ids[: len(masks)], int)
        found.data["class_name"] = np.array(class_names[: len(masks)], np.str_)
        inputs = {"image": picture(tmp_path), "predictions": found}
        resources = Resources({}, tmp_path / "out")
        return run_block(block, inputs, plugins=plugins, resources=resources, **params)

    return run


def picture(folder, name="deep/a.png"):
    return Image(np.zeros((*HW, 3), np.uint8), id=name, path=folder / "in" / name)


def test_yolo_says_the_mask_with_its_hole_and_its_parts_in_one_line(export, mask, tmp_path):
    export("export/yolo@v1", mask, tolerance=0)
    [line] = (tmp_path / "out" / "labels" / "deep" / "a.txt").read_text().splitlines()
    number, *shares = map(float, line.split())
    assert number == 7
    ring = np.array(shares).reshape(-1, 2) * HW[::-1]
    assert np.array_equal(polygons_to_rle([ring], HW).counts, mask_to_rle(mask).counts)


def test_yolo_is_read_back_by_detections_load(export, mask, tmp_path):
    path = export("export/yolo@v1", mask, classes=["hand", "face"]).outputs["path"]
    assert path == str(tmp_path / "out" / "labels" / "deep" / "a.txt")
    found = load_yolo(tmp_path / "out" / "labels" / "deep" / "a.txt", picture(tmp_path), ["h", "f"])
    assert found.class_id.tolist() == [1]
    assert np.allclose(found.xyxy, [[5, 4, 40, 36]], atol=1e-3)


def test_yolo_refuses_a_class_it_has_no_number_for(export, mask, tmp_path):
    [error] = export("export/yolo@v1", mask, classes=["faces"]).errors
    assert error.message == (
        "mask 0 is a 'face', which 'classes' does not list. Did you mean 'faces'?"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("masks", [(), (np.zeros(HW, bool),)])
def test_yolo_of_nothing_is_an_empty_file(export, masks, tmp_path):
    export("export/yolo@v1", *masks)
    assert (tmp_path / "out" / "labels" / "deep" / "a.txt").read_text() == ""


@pytest.mark.parametrize("block", ["export/yolo@v1", "export/labelme@v1"])
def test_two_pictures_do_not_share_a_file(plugins, export_pipeline, tmp_path, block):
    pipeline = export_pipeline("path", save=(block, {}))
    nothing = to_detections(masks_to_prediction(np.zeros((0, *HW), bool)))
    items = [
        Item(name, {"image": picture(tmp_path, name), "found": nothing})
        for name in ("a.png", "a.jpg", "b/a.jpg")
    ]
    with Runner(pipeline, plugins, resources=Resources({}, tmp_path)) as runner:
        first, second, third = runner.run(items)
    assert not first.errors
    assert (
        "is the file of another picture, 'a.png'; put {id} into 'path'" in second.errors[0].message
    )
    assert not third.errors


def test_a_wrong_placeholder_is_an_error(export, mask):
    [error] = export("export/yolo@v1", mask, path="{folders}/x.txt").errors
    assert "wrong placeholder: 'folders'. Did you mean 'folder'?" in error.message


def test_an_id_cannot_lead_out_of_the_folder(plugins, tmp_path):
    nothing = to_detections(masks_to_prediction(np.zeros((0, *HW), bool)))
    image = Image(np.zeros((*HW, 3), np.uint8), id="../../x.png")
    inputs = {"image": image, "predictions": nothing}
    resources = Resources({}, tmp_path / "out")
    run_block("export/yolo@v1", inputs, plugins=plugins, resources=resources, path="{id}.txt")
    assert (tmp_path / "out" / "x.png.txt").exists()


def test_labelme_has_a_polygon_for_each_part_of_an_object(export, mask, tmp_path):
    other = np.zeros(HW, bool)
    other[0:3, 50:55] = True
    export("export/labelme@v1", mask, other, class_names=("face", "ear"), class_ids=(0, 1))
    data = json.loads((tmp_path / "out" / "labelme" / "deep" / "a.json").read_text())
    assert (data["imageHeight"], data["imageWidth"], data["imageData"]) == (*HW, None)
    assert data["imagePath"] == "../../../in/deep/a.png"
    kinds = [(shape["label"], shape["group_id"], shape["shape_type"]) for shape in data["shapes"]]
    assert kinds == [("face", 0, "polygon")] * 2 + [("ear", None, "polygon")]
    rings = [np.array(shape["points"]) for shape in data["shapes"][:2]]
    assert np.array_equal(polygons_to_rle(rings, HW).counts, mask_to_rle(mask).counts)


def test_labelme_has_exact_masks_where_asked(export, mask, tmp_path):
    export(
        "export/labelme@v1", mask, np.zeros(HW, bool), class_ids=(0, 0), class_names=("a", "b"),
        shape="mask",
    )  # fmt: skip
    [shape] = json.loads((tmp_path / "out" / "labelme" / "deep" / "a.json").read_text())["shapes"]
    (x_first, y_first), (x_last, y_last) = np.array(shape["points"]).astype(int)
    drawn = np.zeros(HW, bool)  # as labelme does it
    drawn[y_first : y_last + 1, x_first : x_last + 1] = np.asarray(
        Pil.open(io.BytesIO(base64.b64decode(shape["mask"])))
    ).astype(bool)
    assert np.array_equal(drawn, mask)
