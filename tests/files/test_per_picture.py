from __future__ import annotations

from pathlib import Path

import pytest

from sam2_blocks.files.per_picture import path_beside, relative_path, stem_of
from sam2_blocks.testing import sample_image
from sam2_blocks.values import Image

PICTURE = Image(sample_image().pixels, id="deep/a.b.png", path=Path("/in/deep/a.b.png"))


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{dir}/{stem}.txt", "/in/deep/a.b.txt"),
        ("labels/{name}.json", "labels/a.b.png.json"),
        ("{id}", "deep/a.b.png"),
        ("all.json", "all.json"),
    ],
)
def test_a_template_is_filled_with_the_names_of_the_picture(template, path):
    assert path_beside(template, PICTURE) == Path(path)


def test_a_picture_without_a_file_is_called_by_its_id():
    assert path_beside("{dir}/{stem}.txt", Image(PICTURE.pixels, id="x/y.png")) == Path("x/y.txt")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{stam}", "path '{stam}' has a wrong placeholder: 'stam'. Did you mean 'stem'?"),
        ("{}", r"path '\{\}' has a wrong placeholder: "),
        ("{stem", r"path '\{stem' has a wrong placeholder: "),
    ],
)
def test_a_wrong_placeholder_is_named(template, message):
    with pytest.raises(ValueError, match=message):
        path_beside(template, PICTURE)


@pytest.mark.parametrize(
    ("item_id", "path"),
    [("a/b.png", "a/b.png"), ("../../etc/x", "etc/x"), ("/etc/x", "etc/x"), ("./a/../b", "a/b")],
)
def test_an_id_never_leads_out_of_its_folder(item_id, path):
    assert str(relative_path(item_id)) == path


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.jpg", "a"), ("a.tif#3", "a#3"), ("a#3", "a#3"), ("a.b.png", "a.b"), ("a#b.png", "a#b")],
)
def test_frames_of_one_file_have_stems_of_their_own(name, stem):
    assert stem_of(name) == stem
