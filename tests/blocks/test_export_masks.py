from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.engine.resources import Resources
from sam2_blocks.testing import run_block
from tests.blocks.conftest import HW
from tests.formats.test_youtube_vis import frame, tracks


def test_a_picture_has_one_indexed_file(export, mask, tmp_path):
    other = np.zeros(HW, bool)
    other[0:2, 0:2] = True
    result = export("export/masks@v1", mask, other, class_names=("a", "b"), class_ids=(7, 3))
    path = tmp_path / "out" / "masks" / "deep" / "a.png"
    assert result.outputs["paths"] == [str(path)]
    assert np.array_equal(np.asarray(Pil.open(path)), np.where(other, 2, mask))


def test_values_may_be_classes(export, mask, tmp_path):
    export("export/masks@v1", mask, values="class")
    assert np.asarray(Pil.open(tmp_path / "out" / "masks" / "deep" / "a.png")).max() == 8


@pytest.mark.parametrize(("form", "mode"), [("objects", "L"), ("cutouts", "RGBA")])
def test_each_object_has_a_file_and_an_empty_mask_none(export, mask, tmp_path, form, mode):
    masks = (mask, np.zeros(HW, bool), mask)
    names = {"class_names": ("a",) * 3, "class_ids": (1,) * 3}
    result = export("export/masks@v1", *masks, form=form, **names)
    folder = tmp_path / "out" / "masks" / "deep"
    assert result.outputs["paths"] == [str(folder / "a_0.png"), str(folder / "a_2.png")]
    with Pil.open(folder / "a_0.png") as picture:
        assert picture.mode == mode


def test_a_wrong_placeholder_is_an_error(export, mask):
    [error] = export("export/masks@v1", mask, path="{stems}.png").errors
    assert "wrong placeholder: 'stems'. Did you mean 'stem'?" in error.message


def test_values_may_be_tracks(plugins, tmp_path):
    """A track has one value on all frames; one that is lost has no pixel, and no file."""
    resources = Resources({}, tmp_path)
    for index, found in enumerate([tracks((4, 1), (300, 2)), tracks((300, 3), (4, -1))]):
        inputs = {"image": frame(index), "predictions": found}
        more = {"plugins": plugins, "resources": resources, "values": "track"}
        assert not run_block("export/masks@v1", inputs, **more).errors
        files = run_block("export/masks@v1", inputs, form="objects", path="one/{id}.png", **more)
        names = {Path(path).name for path in files.outputs["paths"]}
        assert names == ({"0_4.png", "0_300.png"}, {"1_300.png"})[index]
    values = [set(np.unique(Pil.open(tmp_path / f"masks/a.mp4/{n}.png")).tolist()) for n in (0, 1)]
    assert values == [{0, 4, 300}, {0, 300}]


def test_values_of_tracks_want_tracks(export, mask):
    [error] = export("export/masks@v1", mask, values="track").errors
    assert "values: track wants detections with tracker_id" in error.message
