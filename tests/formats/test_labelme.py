from __future__ import annotations

import json

from sam2_blocks.formats.labelme import detections_to_labelme
from sam2_blocks.testing import sample_detections, sample_image
from sam2_blocks.values import Image


def test_a_picture_is_named_as_seen_from_the_folder_of_the_file(tmp_path):
    path = tmp_path / "in" / "a.png"
    image = Image(sample_image().pixels, "a.png", path)
    text = detections_to_labelme(sample_detections(), image, folder=tmp_path / "out")
    document = json.loads(text)
    assert document["imagePath"] == "../in/a.png"
    assert (document["imageHeight"], document["imageWidth"]) == (24, 32)
    assert [shape["label"] for shape in document["shapes"]] == ["face", "object"]
    assert {shape["shape_type"] for shape in document["shapes"]} == {"polygon"}
