from __future__ import annotations

import base64
import io
import json

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw

from tests.blocks.conftest import HW


def test_labelme_has_a_polygon_for_each_part_of_an_object(export, mask, tmp_path):
    other = np.zeros(HW, bool)
    other[0:3, 50:55] = True
    export("export/labelme@v1", mask, other, class_names=("face", "ear"), class_ids=(0, 1))
    data = json.loads((tmp_path / "out" / "labelme" / "deep" / "a.json").read_text())
    assert (data["imageHeight"], data["imageWidth"], data["imageData"]) == (*HW, None)
    assert data["imagePath"] == "../../../in/deep/a.png"
    kinds = [(shape["label"], shape["group_id"], shape["shape_type"]) for shape in data["shapes"]]
    assert kinds == [("face", 0, "polygon")] * 2 + [("ear", None, "polygon")]
    painted = Pil.new("L", HW[::-1])
    for shape in data["shapes"][:2]:
        ImageDraw.Draw(painted).polygon([*map(tuple, shape["points"])], outline=1, fill=1)
    assert np.array_equal(np.array(painted, bool), mask)


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
