"""What we export is what other readers read: masks within 0.99, every class right."""

from __future__ import annotations

import json

import numpy as np
import pytest
import supervision as sv
from PIL import Image as Pil
from PIL import ImageDraw
from pycocotools.coco import COCO

from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import run_block
from sam2_blocks.values import Image

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


OUTWARDS = 0.96
"""COCO's polygons run along the edges of pixels, as pycocotools fills them; supervision also paints
the pixels that they run through: half a pixel more all around."""


def check(masks, names, least=0.99):
    for mask, wanted in zip(masks, MASKS, strict=True):
        assert (mask & wanted).sum() / (mask | wanted).sum() >= least
    assert list(names) == list(NAMES)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_pycocotools_reads_coco(export, form):
    coco = COCO(str(export("export/coco@v1", segmentation=form) / "coco.json"))
    rows = coco.loadAnns(coco.getAnnIds())
    names = [coco.loadCats(row["category_id"])[0]["name"] for row in rows]
    check([coco.annToMask(row).astype(bool) for row in rows], names)


@pytest.mark.parametrize(("form", "least"), [("rle", 0.99), ("polygons", OUTWARDS)])
def test_supervision_reads_coco(export, form, least):
    folder = export("export/coco@v1", segmentation=form)
    data = sv.DetectionDataset.from_coco(
        str(folder / "images"), str(folder / "coco.json"), force_masks=True
    )
    [(_, _, found)] = list(data)
    check(found.mask, [data.classes[number] for number in found.class_id], least)


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
