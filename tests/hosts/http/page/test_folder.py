from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.errors import UsageError
from sam2_blocks.formats.clicks import ClickedPicture
from sam2_blocks.hosts.http.page.folder import PageFolder
from sam2_blocks.service.errors import ForbiddenError, ImageRefusedError, UnknownNameError
from tests.hosts.http.page.conftest import clicks_of
from tests.service.conftest import picture


def test_pictures_are_listed_deeply_and_in_order(pictures):
    assert list(PageFolder(pictures).paths()) == ["a b.png", "deep/c.tif"]
    assert list(PageFolder(pictures / "a b.png").paths()) == ["a b.png"]
    assert PageFolder().paths() == {}


def test_a_file_that_browsers_show_is_sent_as_it_is(pictures):
    content, media_type = PageFolder(pictures).read("a b.png")
    assert content == (pictures / "a b.png").read_bytes()
    assert media_type == "image/png"


def test_others_become_png_of_the_same_pixels(pictures):
    content, media_type = PageFolder(pictures).read("deep/c.tif")
    assert media_type == "image/png"
    assert (np.asarray(Pil.open(io.BytesIO(content))) == picture(2).pixels).all()


@pytest.mark.parametrize(
    "name", ["secret.txt", "../outside.png", "deep/../a b.png", "/etc/passwd", "", "a b.png\0"]
)
def test_no_other_file_can_be_named(pictures, name):
    with pytest.raises(UnknownNameError, match="there is no picture"):
        PageFolder(pictures).read(name)


def test_a_broken_file_is_refused(pictures):
    (pictures / "z.bmp").write_bytes(b"no picture")
    with pytest.raises(ImageRefusedError, match=r"z\.bmp: cannot be read"):
        PageFolder(pictures).read("z.bmp")


def test_what_is_saved_is_there_again(pictures, tmp_path):
    folder = PageFolder(pictures, tmp_path / "out")
    assert (folder.saved(), folder.load("deep/c.tif")) == ([], None)
    clicks = ClickedPicture(**clicks_of("deep/c.tif"))
    path = folder.save(clicks)
    assert path == tmp_path / "out" / "clicks" / "deep" / "c.tif.json"
    assert folder.saved() == ["deep/c.tif"]
    assert folder.load("deep/c.tif") == clicks
    assert [file.name for file in path.parent.iterdir()] == ["c.tif.json"]  # nothing unfinished


def test_results_are_no_pictures(pictures):
    folder = PageFolder(pictures, pictures / "out")
    (pictures / "out" / "masks").mkdir(parents=True)
    Pil.fromarray(picture().pixels).save(pictures / "out" / "masks" / "a b.png")
    assert list(folder.paths()) == ["a b.png", "deep/c.tif"]


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "a\\..\\x.png", "a/./b"])
def test_nothing_is_written_or_read_outside(pictures, tmp_path, name):
    folder = PageFolder(pictures, tmp_path / "out")
    with pytest.raises(ForbiddenError, match="leads out of the folder"):
        folder.save(ClickedPicture(**clicks_of(name)))
    with pytest.raises(ForbiddenError, match="leads out of the folder"):
        folder.load(name)
    assert not list(tmp_path.rglob("x.png*"))


def test_nothing_is_written_through_a_link(pictures, tmp_path):
    (tmp_path / "out" / "clicks").mkdir(parents=True)
    (tmp_path / "out" / "clicks" / "away").symlink_to(tmp_path)
    with pytest.raises(ForbiddenError, match="leads out of the folder"):
        PageFolder(pictures, tmp_path / "out").save(ClickedPicture(**clicks_of("away/x.png")))


def test_without_a_folder_nothing_is_saved(pictures):
    with pytest.raises(ForbiddenError, match="start with --out FOLDER"):
        PageFolder(pictures).save(ClickedPicture(**clicks_of("a b.png")))


def test_a_file_that_was_changed_by_hand_is_named(pictures, tmp_path):
    folder = PageFolder(pictures, tmp_path / "out")
    path = folder.save(ClickedPicture(**clicks_of("a b.png")))
    path.write_text('{"file_name": "a b.png"}')
    with pytest.raises(UsageError, match=r"a b\.png\.json: is not as it was saved \(Field"):
        folder.load("a b.png")


def test_pictures_that_are_not_there_are_refused_at_the_start(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        PageFolder(tmp_path / "missing").checked()
    assert PageFolder(tmp_path).checked().paths() == {}  # may be filled later
