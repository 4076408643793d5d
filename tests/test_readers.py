"""What we export is what other readers read: masks within 0.99, every class right.

datumaro wants older releases of pandas and Pillow, so it is not among the packages for development;
what it reads is tested where it is installed: in an environment of its own.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import supervision as sv
from PIL import Image as Pil
from PIL import ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import run_block
from sam2_blocks.values import Image

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")

HW = (480, 640)
Y, X = np.ogrid[: HW[0], : HW[1]]
NAMES = ("cup", "plate", "ring", "coin")
MASKS = np.stack(
    [
        np.hypot((X - 180) / 1.3, Y - 200) < 120,
        (np.abs(X - 470) + np.abs(Y - 300)) < 150,
        np.abs(np.hypot(X - 420, Y - 90) - 55) < 20,
        np.hypot(X - 600, Y - 440) < 30,
    ]
)


@pytest.fixture
def export(plugins, tmp_path):
    """Write the masks of one picture with a block."""
    (tmp_path / "images").mkdir()
    Pil.new("RGB", HW[::-1]).save(tmp_path / "images" / "a.png")
    found = to_detections(masks_to_prediction(MASKS))
    found.class_id = np.array([3, 8, 9, 11])
    found.data["class_name"] = np.array(NAMES)
    image = Image(np.zeros((*HW, 3), np.uint8), "a.png", tmp_path / "images" / "a.png")

    def run(block, **params):
        inputs = {"image": image, "predictions": found}
        result = run_block(
            block, inputs, plugins=plugins, resources=Resources({}, tmp_path), **params
        )
        assert not result.errors
        return tmp_path

    return run


FORMS = [
    {"segmentation": "rle"},
    {"segmentation": "polygons", "outlines": "edges"},
    {"segmentation": "polygons", "outlines": "pixels"},
]
RLE, EDGES, PIXELS = FORMS
BAR = np.pad(np.ones((5, 4), np.uint8), ((2, 2), (2, 6)))
HALF_A_PIXEL = 0.95
"""What is left of these masks where a reader takes one form of polygons for the other."""


def check(masks, names, least=0.99):
    for mask, wanted in zip(masks, MASKS, strict=True):
        assert (mask & wanted).sum() / (mask | wanted).sum() >= least
    assert list(names) == list(NAMES)


@pytest.mark.parametrize(("form", "least"), [(RLE, 0.99), (EDGES, 0.99), (PIXELS, HALF_A_PIXEL)])
def test_pycocotools_reads_coco(export, form, least):
    coco = COCO(str(export("export/coco@v1", **form) / "coco.json"))
    rows = coco.loadAnns(coco.getAnnIds())
    names = [coco.loadCats(row["category_id"])[0]["name"] for row in rows]
    check([coco.annToMask(row).astype(bool) for row in rows], names, least)


@pytest.mark.parametrize(("form", "least"), [(RLE, 0.99), (EDGES, HALF_A_PIXEL), (PIXELS, 0.99)])
def test_supervision_reads_coco(export, form, least):
    folder = export("export/coco@v1", **form)
    data = sv.DetectionDataset.from_coco(
        str(folder / "images"), str(folder / "coco.json"), force_masks=True
    )
    [(_, _, found)] = list(data)
    check(found.mask, [data.classes[number] for number in found.class_id], least)


@pytest.mark.parametrize(("form", "least"), [(RLE, 0.99), (EDGES, 0.99), (PIXELS, HALF_A_PIXEL)])
def test_datumaro_reads_coco(export, form, least):
    datumaro = pytest.importorskip("datumaro")
    path = "annotations/instances_default.json"  # as it wants COCO files to be called
    folder = export("export/coco@v1", path=path, **form)
    data = datumaro.Dataset.import_from(str(folder), "coco")
    [item] = data
    labels = data.categories()[datumaro.AnnotationType.label]
    shapes = [one for one in item.annotations if not isinstance(one, datumaro.Bbox)]
    shapes.sort(key=lambda shape: shape.id)
    masks = [datumaro_mask(datumaro, shape) for shape in shapes]
    check(masks, [labels[shape.label].name for shape in shapes], least)


def datumaro_mask(datumaro, shape):
    """As datumaro itself turns its polygons into masks, with pycocotools."""
    if isinstance(shape, datumaro.Polygon):
        [rle] = coco_mask.frPyObjects([shape.points], *HW)
        return coco_mask.decode(rle).astype(bool)
    return np.asarray(shape.image, dtype=bool)


def test_datumaro_reads_yolo_s_boxes(export):
    datumaro = pytest.importorskip("datumaro")
    data = datumaro.Dataset.import_from(str(export("export/yolo@v1", shape="box")), "yolo")
    [item] = data
    labels = data.categories()[datumaro.AnnotationType.label]
    assert [labels[box.label].name for box in item.annotations] == list(NAMES)
    for box, mask in zip(item.annotations, MASKS, strict=True):
        (y0, x0), (y1, x1) = np.argwhere(mask).min(axis=0), np.argwhere(mask).max(axis=0) + 1
        assert np.abs(np.subtract(box.points, (x0, y0, x1, y1))).max() < 0.01


def test_no_polygon_suits_pycocotools_and_supervision():
    """Where a bar shall end with pixel 5, no place of its right edge is right for both."""
    for right in np.arange(4, 8, 1 / 64):
        corners = np.array([(2.2, 2.2), (right, 2.2), (right, 6.2), (2.2, 6.2)])
        [filled] = coco_mask.frPyObjects([corners.ravel().tolist()], *BAR.shape)
        painted = sv.polygon_to_mask(np.round(corners).astype(int), BAR.shape[::-1])
        row_of_each = coco_mask.decode(filled)[4], painted[4]
        assert not all(np.array_equal(row, BAR[4]) for row in row_of_each)


def test_supervision_reads_yolo(export):
    folder = export("export/yolo@v1")
    data = sv.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    [(_, _, found)] = list(data)
    check(found.mask, [data.classes[number] for number in found.class_id])


def test_labelme_s_shapes_are_the_masks(export):
    folder = export("export/labelme@v1")
    shapes = json.loads((folder / "labelme" / "a.json").read_text())["shapes"]
    check([as_labelme_paints(shape) for shape in shapes], [shape["label"] for shape in shapes])


def as_labelme_paints(shape):
    """As ``labelme.utils.shape_to_mask`` does."""
    picture = Pil.new("L", HW[::-1])
    ImageDraw.Draw(picture).polygon([*map(tuple, shape["points"])], outline=1, fill=1)
    return np.array(picture, dtype=bool)
