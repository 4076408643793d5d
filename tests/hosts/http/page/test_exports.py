from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import supervision as sv
from PIL import Image as Pil
from pycocotools.coco import COCO

from sam2_blocks.formats.clicks import ClickedPicture
from sam2_blocks.hosts.http.page.exports import FORMS, export_to_bytes, export_to_folder
from sam2_blocks.masks.rle import mask_to_rle, rle_to_coco
from tests.hosts.http.page.conftest import clicks_of
from tests.test_readers import HW, MASKS, NAMES, as_labelme_paints, check


def pair(name, path=None, **fields):
    picture = ClickedPicture(**clicks_of(name, **fields))
    return picture, picture.image(path)


TWO = [pair("a.jpg"), pair("deep/b.jpg", class_name="plate")]


def test_coco_has_all_pictures_and_the_masks_as_they_are():
    name, content = export_to_bytes("coco", TWO, ["plate"])
    found = json.loads(content)
    assert name == "coco.json"
    assert [row["file_name"] for row in found["images"]] == ["a.jpg", "deep/b.jpg"]
    assert [row["name"] for row in found["categories"]] == ["plate", "cup"]
    masks = [one.mask for picture, _ in TWO for one in picture.objects]
    assert [row["segmentation"] for row in found["annotations"]] == masks
    assert [row["bbox"] for row in found["annotations"]] == [[30, 10, 20, 10]] * 2


def test_yolo_numbers_classes_in_the_order_of_the_page():
    name, content = export_to_bytes("yolo", TWO, ["spoon", "plate"])
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert name == "yolo.zip"
    assert archive.namelist() == ["data.yaml", "labels/a.txt", "labels/deep/b.txt"]
    assert archive.read("labels/a.txt").startswith(b"2 0.618125 0.1675 ")
    assert archive.read("labels/deep/b.txt").startswith(b"1 ")
    assert b'2: "cup"' in archive.read("data.yaml")


def test_labelme_is_one_file_for_one_picture():
    name, content = export_to_bytes("labelme", TWO[:1], [])
    assert name == "a.json"
    document = json.loads(content)
    assert [shape["label"] for shape in document["shapes"]] == ["cup"]
    assert document["imagePath"] == "a.jpg"


def test_labelme_in_a_folder_reaches_the_picture(tmp_path):
    path = tmp_path / "pictures" / "deep" / "b.jpg"
    export_to_folder("labelme", [pair("deep/b.jpg", path)], [], tmp_path / "out")
    document = json.loads((tmp_path / "out" / "labelme" / "deep" / "b.json").read_text())
    assert document["imagePath"] == "../../../pictures/deep/b.jpg"


def test_masks_are_numbered_pictures():
    name, content = export_to_bytes("masks", TWO[:1], [])
    values = np.asarray(Pil.open(io.BytesIO(content)))
    assert name == "a.png"
    assert values[10:20, 30:50].min() == 1
    assert values.sum() == 200


@pytest.fixture
def export(tmp_path):
    """``export(form)``: the folder with a picture of four objects, one of them with a hole."""
    images = tmp_path / "images"
    images.mkdir()
    Pil.new("RGB", HW[::-1]).save(images / "a.png")
    masks = [dict(rle_to_coco(mask_to_rle(mask))) for mask in MASKS]
    picture = ClickedPicture(
        file_name="a.png",
        width=HW[1],
        height=HW[0],
        prompts=[{"box_xyxy": [1, 2, 3, 4]}] * len(masks),
        objects=[
            {"class_name": name, "mask": mask} for name, mask in zip(NAMES, masks, strict=True)
        ],
    )

    def run(form):
        export_to_folder(form, [(picture, picture.image(images / "a.png"))], ["plate"], tmp_path)
        return tmp_path

    return run


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
def test_pycocotools_reads_the_masks_as_they_are(export):
    coco = COCO(str(export("coco") / "coco.json"))
    rows = coco.loadAnns(coco.getAnnIds())
    names = [coco.loadCats(row["category_id"])[0]["name"] for row in rows]
    check([coco.annToMask(row).astype(bool) for row in rows], names, least=1)


def test_supervision_reads_yolo(export):
    folder = export("yolo")
    places = [str(folder / name) for name in ("images", "labels", "data.yaml")]
    data = sv.DetectionDataset.from_yolo(*places)
    [(_, _, found)] = list(data)
    check(found.mask, [data.classes[number] for number in found.class_id])


def test_labelme_paints_the_masks(export):
    shapes = json.loads((export("labelme") / "labelme" / "a.json").read_text())["shapes"]
    check([as_labelme_paints(shape) for shape in shapes], [shape["label"] for shape in shapes])


def test_pillow_reads_the_numbers_of_objects(export):
    values = np.asarray(Pil.open(export("masks") / "masks" / "a.png"))
    for number, mask in enumerate(MASKS, start=1):
        on_top = [other for other in MASKS if other.sum() < mask.sum()]  # the smaller ones
        seen = mask & ~np.any([np.zeros(HW, bool), *on_top], axis=0)
        assert np.array_equal(values == number, seen)


@pytest.mark.parametrize("form", FORMS)
def test_pictures_without_objects_are_exported_too(form, tmp_path):
    export_to_folder(form, [pair("a.jpg", prompts=[], objects=[])], [], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("form", ["labelme", "yolo", "masks"])
def test_pictures_that_would_share_a_file_are_refused(form):
    with pytest.raises(ValueError, match=r"is the file of another picture, 'a\.jpg'"):
        export_to_bytes(form, [pair("a.jpg"), pair("a.png")], [])
