from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sam2_blocks.formats.names import PictureNames
from sam2_blocks.values import Image


def picture(name, path=None):
    return Image(np.zeros((2, 3, 3), np.uint8), name, None if path is None else Path(path))


def find(names, wanted, path=None):
    return PictureNames(names, "boxes.json").find(picture(wanted, path))


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        ("a.jpg", "a.jpg"),
        (r"images\a.jpg", "a.jpg"),
        (r"..\..\upload\4\b.jpg", "b.jpg"),
        (r"C:\data\train\b.jpg", "train/b.jpg"),
        ("./images/a.jpg", "images/a.jpg"),
        ("train/a.png", "a.png"),
        ("b.png", "deep/b.png"),
        ("file:///data/images/a%20b.jpg", "a b.jpg"),
        ("https://x.example/pictures/a.jpg?token=1#x", "a.jpg"),
        ("s3://bucket/a.jpg", "a.jpg"),
        ("A.JPG", "a.jpg"),
        (" a.jpg ", "a.jpg"),
        ("Tu\u0308r.jpg", "T\u00fcr.jpg"),
        ("a\u200b.jpg", "a.jpg"),
        ("/data/upload/4/1a2b3c4d-cat.jpg", "cat.jpg"),
        ("cat_jpg.rf.0a1B2c3D.jpg", "cat.jpg"),
        ("frame_0001", "frame_0001.png"),
        ("frame_0001.png", "frame_0001.jpg"),
        ("frame.0001", "frame.0001.png"),
        ("/data/local-files/?d=train/a.jpg", "train/a.jpg"),
        (r"data/local-files/?d=train%5Ca%20b.jpg", "a b.jpg"),
        ("IMG_7-1-_jpg.rf.0a1B2c3D.jpg", "IMG_7 (1).jpg"),
        ("a&amp;b.jpg", "a&b.jpg"),
        ("a_b.jpg", "a b.jpg"),
        ("a\u2011b\u00a0c.jpg", "a-b c.jpg"),
    ],
)
def test_a_name_finds_its_picture(listed, wanted):
    assert find([listed, "x/other.jpg"], wanted) == listed


@pytest.mark.parametrize(
    ("listed", "wanted", "found"),
    [
        (["a.jpg", "A.jpg"], "A.jpg", "A.jpg"),
        (["a.jpg", "a.png"], "a.png", "a.png"),
        (["a.jpg", "x/a.jpg"], "x/a.jpg", "x/a.jpg"),
        (["a.jpg", "y/a.jpg"], "x/a.jpg", "a.jpg"),
        ([r"images\a.jpg", r"x\images\a.jpg"], "images/a.jpg", r"images\a.jpg"),
        (["a%20b.jpg", "a b.jpg"], "a b.jpg", "a b.jpg"),
    ],
)
def test_the_stricter_reading_decides(listed, wanted, found):
    assert find(listed, wanted) == found


def test_other_signs_do_not_join_words():
    with pytest.raises(ValueError, match=r"lists no picture '12\.jpg'"):
        find(["1-2.jpg"], "12.jpg")
    with pytest.raises(ValueError, match="could be any of"):
        find(["a_b.jpg", "a-b.jpg"], "a b.jpg")


def test_the_file_decides_between_folders():
    names = ["train/a.jpg", "val/a.jpg"]
    assert find(names, "a.jpg", "/data/val/a.jpg") == "val/a.jpg"
    with pytest.raises(ValueError, match=r"'a\.jpg' could be any of 'train/a\.jpg', 'val/a\.jpg'"):
        find(names, "a.jpg")


def test_another_folder_is_another_picture():
    with pytest.raises(ValueError, match=r"lists no picture 'cam2/0\.jpg'"):
        find(["cam1/0.jpg"], "cam2/0.jpg")


def test_the_nearest_names_are_shown():
    names = [f"images/photo_{number:05}.jpg" for number in range(20_000)]
    with pytest.raises(ValueError, match=r"The nearest names are .*'images/photo_00012\.jpg'"):
        find(names, "photo00012.jpg")
    with pytest.raises(
        ValueError, match=r"Of 20000 names, the first are 'images/photo_00000\.jpg'"
    ):
        find(names, "x.y")
    with pytest.raises(ValueError, match="It lists none"):
        find([], "x.jpg")
