"""The page in a real browser: pictures that come into it, what it saves and what it exports."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
from PIL import Image as Pil

from sam2_blocks.hosts.http.page.folder import PageFolder
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from tests.conftest import PICTURES
from tests.hosts.http.page.browsing import expected_masks, serving, wait_until

COINS = "coins.jpg"
COIN, OTHER_COIN = (93, 521), (210, 515)


def test_what_was_saved_is_there_again(clicking, visit):
    clicking.open(COINS)
    clicking.click(*COIN)
    clicking.press("n")
    clicking.click(*OTHER_COIN)
    clicking.press("c")
    before, masks = clicking.saved(), clicking.masks()
    clicking.open("astronaut.jpg")
    clicking.open(COINS)
    assert clicking.objects() == ["object 1", "object 2"]
    again = visit(clicking.tab.url)
    again.open(COINS)
    assert again.masks() == masks
    assert again.tab.get_by_role("img", name="has masks").count() == 1
    again.click(300, 300)  # nothing is selected: a third one
    after = again.saved()
    assert after["objects"][:2] == before["objects"]
    assert len(after["objects"]) == 3


def test_changes_are_saved_without_being_asked(clicking, out):
    clicking.open(COINS)
    clicking.click(*COIN)
    wait_until((out / "clicks" / "coins.jpg.json").exists)


def test_all_saved_pictures_are_exported_into_the_folder(clicking, out):
    for name in (COINS, "coffee.jpg"):
        clicking.open(name)
        clicking.click(100, 100)
    clicking.choose("[data-export-all=yolo]")
    clicking.tab.get_by_text("of 2 pictures").wait_for()
    assert sorted(path.name for path in (out / "labels").iterdir()) == ["coffee.txt", "coins.txt"]


def test_every_form_of_export_has_the_object(clicking):
    clicking.open(COINS)
    clicking.drag((36, 466), (150, 576))
    [mask] = clicking.masks()
    labelme = json.loads(clicking.export("labelme"))
    archive = zipfile.ZipFile(io.BytesIO(clicking.export("yolo")))
    values = np.asarray(Pil.open(io.BytesIO(clicking.export("masks"))))
    assert (values.astype(bool) == rle_to_mask(coco_to_rle(mask))).all()
    assert labelme["shapes"]
    assert archive.read("labels/coins.txt").startswith(b"0 ")


def test_a_picture_may_be_dropped_or_pasted(visit, nano, coins):
    with serving({"nano": nano}) as url:
        page = visit(url)
        for event in ("drop", "paste"):
            send_file(page.tab, event, f"{event}ped.jpg", (PICTURES / COINS).read_bytes())
            page.wait_for(f"{event}ped.jpg")
            page.click(*COIN)
            row = {"point_coords": [list(COIN)], "point_labels": [1]}
            assert page.masks() == expected_masks(nano, coins, [row])


def test_what_is_dropped_is_kept_with_its_masks(visit, nano, out):
    content = (PICTURES / COINS).read_bytes()
    with serving({"nano": nano}, PageFolder(PICTURES, out)) as url:
        page = visit(url)
        page.wait_for("astronaut.jpg")
        send_file(page.tab, "paste", "image.jpg", (PICTURES / "coffee.jpg").read_bytes())
        page.wait_for("pictures/image.jpg")
        send_file(page.tab, "paste", "image.jpg", content)
        page.wait_for("pictures/image-2.jpg")
        page.click(*COIN)
        before, masks = page.saved(), page.masks()
        assert (out / "pictures" / "image-2.jpg").read_bytes() == content
        again = visit(url)
        again.open("pictures/image-2.jpg")
        assert (again.masks(), again.prompts()) == (masks, before["prompts"])
        send_file(again.tab, "drop", COINS, content)  # the one of the folder
        again.wait_for(COINS)
        assert again.objects() == []
        again.choose("[data-export-all=labelme]")
        again.tab.get_by_text("Wrote labelme/ of").wait_for()
        place = out / "labelme" / "pictures"
        labelme = json.loads((place / "image-2.json").read_text())
        assert (place / labelme["imagePath"]).read_bytes() == content


def send_file(tab, event, name, content):
    """Let a person drop or paste a file."""
    tab.evaluate(
        """([event, name, content]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(content)], name, { type: "image/jpeg" }));
          const options = { bubbles: true, cancelable: true };
          document.dispatchEvent(event === "drop"
            ? new DragEvent("drop", { ...options, dataTransfer: data })
            : new ClipboardEvent("paste", { ...options, clipboardData: data }));
        }""",
        [event, name, list(content)],
    )


def test_a_file_is_opened_by_the_button(visit, nano):
    with serving({"nano": nano}) as url:
        page = visit(url)
        with page.tab.expect_file_chooser() as chooser:
            page.tab.get_by_role("button", name="open a picture").click()
        chooser.value.set_files(PICTURES / COINS)
        page.wait_for(COINS)


def test_what_is_no_picture_is_refused_in_words(visit, nano):
    with serving({"nano": nano}) as url:
        page = visit(url)
        send_file(page.tab, "drop", "a.jpg", b"no picture")
        page.tab.get_by_role("alert").get_by_text(
            "a.jpg is no picture that browsers show; put it into the folder instead."
        ).wait_for()


def test_a_damaged_picture_of_the_folder_says_what_is_wrong_with_it(visit, nano, tmp_path):
    whole = (PICTURES / COINS).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "whole.jpg").write_bytes(whole)
    with serving({"nano": nano}, PageFolder(tmp_path)) as url:
        page = visit(url)
        page.open("whole.jpg")
        for name, reason in (("cut.jpg", "is it cut short?"), ("text.jpg", "not a picture that")):
            page.tab.get_by_role("button", name=name).click()
            told = page.tab.get_by_role("alert").get_by_text(f"{name} cannot be opened")
            told.wait_for()
            assert reason in told.inner_text()


def test_what_is_told_fits_a_small_screen(visit, nano):
    with serving({"nano": nano}) as url:
        page = visit(url, viewport={"width": 390, "height": 800})
        send_file(page.tab, "drop", f"{'a' * 90}.jpg", b"no picture")
        told = page.tab.get_by_role("alert")
        told.wait_for()
        box = told.bounding_box()
    assert box["x"] >= 14
    assert box["x"] + box["width"] <= 390 - 14
