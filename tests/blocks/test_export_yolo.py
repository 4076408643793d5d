from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import supervision as sv
from PIL import Image as Pil

from sam2_blocks import Item, Runner
from sam2_blocks.blocks.export_yolo import ExportYolo, _Settled
from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.formats.yolo_lines import YoloLabels
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import run_block
from sam2_blocks.values import Image
from tests.blocks.conftest import HW, picture


def test_yolo_says_the_mask_with_its_hole_and_its_parts_in_one_line(export, mask, tmp_path):
    export("export/yolo@v1", mask, tolerance=0)
    [line] = (tmp_path / "out" / "labels" / "deep" / "a.txt").read_text().splitlines()
    number, *shares = map(float, line.split())
    assert number == 0
    ring = np.array(shares).reshape(-1, 2) * HW[::-1]
    painted = sv.polygon_to_mask(ring, HW[::-1]).astype(bool)
    assert not (mask & ~painted).any()
    assert (painted & ~mask).sum() <= 8  # the line between the two parts


def test_yolo_is_read_back_by_detections_load(export, mask, tmp_path):
    path = export("export/yolo@v1", mask, classes=["hand", "face"]).outputs["path"]
    assert path == str(tmp_path / "out" / "labels" / "deep" / "a.txt")
    found = YoloLabels().load(tmp_path / "out" / "labels" / "deep" / "a.txt", HW, ["h", "f"])
    assert found.class_id.tolist() == [1]
    assert np.allclose(found.xyxy, [[5, 4, 40, 36]], atol=0.56)


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


def test_every_picture_has_the_same_numbers_and_data_yaml_their_names(
    plugins, export_pipeline, tmp_path, mask
):
    pipeline = export_pipeline("path", save=("export/yolo@v1", {}))
    items = []
    for name, class_name, class_id in (("a", "dog", 16), ("b", "cat", 15), ("c", "dog", 16)):
        found = to_detections(masks_to_prediction(mask[None]))
        found.class_id = np.array([class_id])
        found.data["class_name"] = np.array([class_name])
        items.append(Item(name, {"image": picture(tmp_path, f"{name}.png"), "found": found}))
    with Runner(pipeline, plugins, resources=Resources({}, tmp_path), batch_size=1) as runner:
        assert not [result.errors for result in runner.run(items) if result.errors]
    note, _, names = (tmp_path / "data.yaml").read_text().partition("\n")
    assert note.startswith("# written by sam2_blocks")
    assert names == 'nc: 2\nnames:\n  0: "cat"\n  1: "dog"\n'
    texts = [(tmp_path / "labels" / f"{name}.txt").read_text() for name in "abc"]
    assert [text.split()[0] for text in texts] == ["1", "0", "1"]
    data_set = sv.DetectionDataset.from_yolo(
        str(_blank_pictures(tmp_path)), str(tmp_path / "labels"), str(tmp_path / "data.yaml")
    )
    assert data_set.classes == ["cat", "dog"]
    for _, _, read in data_set:
        both = read.mask[0] & mask
        # supervision fills the pixels along the edge, too
        assert both.sum() / (read.mask[0] | mask).sum() > 0.85


def _blank_pictures(folder):
    (folder / "images").mkdir()
    for name in "abc":
        Pil.new("RGB", HW[::-1]).save(folder / "images" / f"{name}.png")
    return folder / "images"


def test_boxes_are_tightened_to_the_mask(export, mask, tmp_path):
    export("export/yolo@v1", mask, shape="box")
    [line] = (tmp_path / "out" / "labels" / "deep" / "a.txt").read_text().splitlines()
    cx, cy, width, height = (float(number) for number in line.split()[1:])
    assert np.allclose([cx * 60, cy * 40, width * 60, height * 40], [22.5, 20, 35, 32], atol=1e-3)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("labels/{folder}/{stem}.txt", "data.yaml"),
        ("val/labels/{stem}.txt", "val/data.yaml"),
        ("{id}.txt", "data.yaml"),
        ("yolo/{id}.txt", "yolo/data.yaml"),
    ],
)
def test_data_yaml_is_beside_the_labels(export, mask, tmp_path, path, data):
    export("export/yolo@v1", mask, path=path)
    assert (tmp_path / "out" / data).exists()


def test_what_is_settled_late_brings_no_picture_back(mask, tmp_path, monkeypatch):
    """A run is killed while it moves settled labels; then a picture goes, with its label."""

    def items():
        for name, class_name, class_id in (("a.png", "zebra", 5), ("b.png", "ant", 2)):
            found = to_detections(masks_to_prediction(mask[None]))
            found.class_id = np.array([class_id])
            found.data["class_name"] = np.array([class_name])
            params = {"path": "labels/{id}.txt", "classes": [], "shape": "box", "tolerance": 0.0}
            yield SimpleNamespace(image=picture(tmp_path, name), predictions=found, **params)

    def die(*_):
        raise KeyboardInterrupt

    killed = ExportYolo(Resources({}, tmp_path))
    killed.run([*items()])
    with monkeypatch.context() as patch:
        patch.setattr(_Settled, "move", die)
        with pytest.raises(KeyboardInterrupt):
            killed.finish()
    first, second = sorted((tmp_path / "labels").iterdir())
    second.unlink()
    files = OutputFiles(
        tmp_path, kept={"a.png": [first]}, shared_before={tmp_path / "data.yaml": "ExportYolo"}
    )
    ExportYolo(Resources({}, files=files)).finish()
    assert [*(tmp_path / "labels").iterdir()] == [first]
    assert first.read_text().startswith("0 ")
    assert "ant" not in (tmp_path / "data.yaml").read_text()
