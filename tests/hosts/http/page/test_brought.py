from __future__ import annotations

import io

import pytest
from PIL import Image as Pil

from sam2_blocks.formats.clicks import ClickedPicture
from sam2_blocks.hosts.http.page.folder import PageFolder
from sam2_blocks.service.errors import ForbiddenError, ImageRefusedError
from tests.hosts.http.page.conftest import clicks_of
from tests.service.conftest import picture


def encoded(seed=7, form="PNG", **options):
    stream = io.BytesIO()
    Pil.fromarray(picture(seed).pixels).save(stream, form, **options)
    return stream.getvalue()


def test_what_is_brought_is_kept_and_listed_after_the_folder(pictures, out):
    folder = PageFolder(pictures, out)
    assert folder.keep("new.png", encoded()) == "pictures/new.png"
    assert list(folder.paths()) == ["a b.png", "deep/c.tif", "pictures/new.png"]
    assert folder.read("pictures/new.png") == (encoded(), "image/png")
    assert list(PageFolder(None, out).paths()) == ["pictures/new.png"]


def test_the_same_picture_is_kept_once_with_what_was_saved(out):
    folder = PageFolder(None, out)
    name = folder.keep("image.png", encoded(1))
    folder.save(ClickedPicture(**clicks_of(name)))
    assert folder.keep("image.png", encoded(2)) == "pictures/image-2.png"  # pasted: all one name
    assert folder.keep("image.png", encoded(3)) == "pictures/image-3.png"
    assert folder.keep("image.png", encoded(1)) == name
    assert folder.load(name) is not None
    assert folder.load("pictures/image-2.png") is None
    assert len(list((out / "pictures").iterdir())) == 3


def test_a_picture_of_the_folder_is_known_again(pictures, out):
    content = (pictures / "deep" / "c.tif").read_bytes()
    assert PageFolder(pictures, out).keep("c.tif", content) == "deep/c.tif"
    assert not (out / "pictures").exists()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../x.png", "x.png"),
        ("C:\\photos\\x.png", "x.png"),
        ("/etc/passwd", "passwd.png"),
        ("..", "picture.png"),
        ("a<b>?.png", "a-b-.png"),
        ("x.html", "x.html.png"),
        ("\u00e4" * 200 + ".png", None),
    ],
)
def test_the_name_stays_in_the_folder(out, name, kept):
    found = PageFolder(None, out).keep(name, encoded())
    assert kept is None or found == f"pictures/{kept}"
    [file] = (out / "pictures").iterdir()
    assert file.read_bytes() == encoded()
    assert PageFolder(None, out).read(found)[0] == encoded()


def test_a_file_of_several_frames_is_kept_and_its_first_opened(out):
    content = encoded(form="TIFF", save_all=True, append_images=[Pil.fromarray(picture(8).pixels)])
    folder = PageFolder(None, out)
    assert folder.keep("two.tif", content) == "pictures/two.tif#0"
    assert list(folder.paths()) == ["pictures/two.tif#0", "pictures/two.tif#1"]


def test_what_is_no_picture_is_refused(out):
    folder = PageFolder(None, out, max_pixels=4800)
    with pytest.raises(ImageRefusedError, match=r"a\.png: not a picture that Pillow can read"):
        folder.keep("a.png", b"no picture")
    stream = io.BytesIO()
    Pil.new("RGB", (100, 100)).save(stream, "PNG")
    with pytest.raises(ImageRefusedError, match=r"a\.png: "):
        folder.keep("a.png", stream.getvalue())
    assert not (out / "pictures").exists()


def test_where_nothing_is_saved_nothing_is_kept(pictures):
    with pytest.raises(ForbiddenError, match="start with --out FOLDER"):
        PageFolder(pictures).keep("a.png", encoded())


def test_a_folder_that_cannot_be_written_is_named(out):
    out.mkdir()
    (out / "pictures").write_text("a file")
    with pytest.raises(ImageRefusedError, match=r"a\.png: cannot be kept"):
        PageFolder(None, out).keep("a.png", encoded())
