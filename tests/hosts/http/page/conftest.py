from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Pil

from tests.hosts.http.conftest import *  # noqa: F403 (its fixtures)
from tests.service.conftest import picture


@pytest.fixture
def pictures(tmp_path):
    """A folder with two pictures, one of them below, and something else."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    Pil.fromarray(picture(1).pixels).save(folder / "a b.png")
    Pil.fromarray(picture(2).pixels).save(folder / "deep" / "c.tif")
    (folder / "secret.txt").write_text("secret")
    (tmp_path / "outside.png").write_bytes((folder / "a b.png").read_bytes())
    return folder


def clicks_of(name, class_name="cup", **fields):
    """What the page saves of a picture of 80x60 pixels with one object."""
    from sam2_blocks.masks.rle import mask_to_rle, rle_to_coco

    mask = np.zeros((60, 80), bool)
    mask[10:20, 30:50] = True
    return {
        "file_name": name,
        "width": 80,
        "height": 60,
        "prompts": [{"point_coords": [[40, 15]], "point_labels": [1]}],
        "objects": [{"class_name": class_name, "mask": dict(rle_to_coco(mask_to_rle(mask)))}],
        **fields,
    }
