import json
from pathlib import Path

import pytest

from sam2_blocks.formats.labelme import detections_to_labelme
from sam2_blocks.kinds import sample_detections, sample_image
from sam2_blocks.values import Image


@pytest.mark.parametrize("shape", ["polygon", "mask"])
def test_every_mask_with_pixels_is_a_shape(shape):
    found = sample_detections()
    found.mask[1] = False
    text = detections_to_labelme(found, sample_image(), folder=Path("x"), shape=shape)
    [written] = json.loads(text)["shapes"]
    assert (written["label"], written["shape_type"]) == ("face", shape)
    assert [int(number) for number in min(written["points"])] == [2, 3]


def test_the_picture_is_named_as_seen_from_the_file(tmp_path):
    image = Image(sample_image().pixels, "a.png", tmp_path / "in" / "a.png")
    written = json.loads(
        detections_to_labelme(sample_detections(0), image, folder=tmp_path / "out")
    )
    assert written["imagePath"] == "../in/a.png"
    assert (written["imageHeight"], written["imageWidth"]) == (24, 32)
