from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Pil

from tests.blocks.conftest import HW


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
