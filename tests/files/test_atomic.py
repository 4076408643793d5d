from __future__ import annotations

import os

import pytest

from sam2_blocks.files.atomic import write_atomically


def test_an_error_without_a_number_keeps_its_words(tmp_path):
    def encode(file):
        raise OSError("encoder error -2 when writing image file")

    with pytest.raises(OSError, match=r"^encoder error -2 when writing image file$"):
        write_atomically(tmp_path / "picture.png", encode)
    assert os.listdir(tmp_path) == []


def test_an_error_with_a_number_names_the_file(tmp_path):
    def fill(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*picture.png'"):
        write_atomically(tmp_path / "picture.png", fill)
