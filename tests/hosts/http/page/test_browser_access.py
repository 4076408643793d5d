"""The page without a mouse, and for everybody."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sam2_blocks import read_image
from sam2_blocks.hosts.http.page.folder import PageFolder
from tests.conftest import PICTURES
from tests.hosts.http.page.browsing import expected_masks, serving

COINS = "coins.jpg"


def violations(tab):
    """Run axe; return what it finds that matters."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python, see .ci/run"
    )
    found = axe.Axe().run(tab).response["violations"]
    return [(one["id"], one["impact"], [node["html"] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, nano, out, scheme):
    with serving({"nano": nano}, PageFolder(PICTURES, out)) as url:
        page = visit(url, color_scheme=scheme)
        page.open(COINS)
        page.click(93, 521)
        page.masks()
        page.tab.evaluate("Promise.all(document.getAnimations().map((one) => one.finished))")
        assert violations(page.tab) == []
        page.tab.locator("#export").click()
        assert violations(page.tab) == []
        page.press("Escape")
        page.tab.locator("#help").click()
        assert violations(page.tab) == []


def test_axe_finds_nothing_where_there_is_no_picture_yet(visit, nano):
    with serving({"nano": nano}) as url:
        assert violations(visit(url).tab) == []


def test_the_keyboard_is_enough(clicking, nano):
    clicking.wait_for("astronaut.jpg")
    image = read_image(PICTURES / "astronaut.jpg")
    clicking.tab.get_by_role("link", name="Skip to the picture").focus()
    clicking.press("Enter")
    clicking.stage.focus()
    for keys in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft", "Enter", "ArrowUp", "Shift+Enter"):
        clicking.press(keys)
    for keys in ("n", "b", "ArrowDown", "ArrowDown", "ArrowRight", "b"):
        clicking.press(keys)
    clicked, boxed = rows = clicking.prompts()
    (x0, y0), (x1, y1) = clicked["point_coords"]
    assert clicked["point_labels"] == [1, 0]
    assert x1 == x0
    assert y1 < y0
    left, top, right, bottom = boxed["box_xyxy"]
    assert (left, top) == (x1, y1)
    assert right > left
    assert bottom > top
    masks = expected_masks(nano, image, rows)
    assert clicking.masks() == masks


def test_tab_leaves_the_picture_when_nothing_is_selected(clicking):
    clicking.open(COINS)
    clicking.click(93, 521)
    clicking.stage.focus()
    clicking.press("Tab")
    assert clicking.tab.evaluate("document.activeElement.id") == "stage"
    clicking.press("Escape")
    clicking.press("Tab")
    assert clicking.tab.evaluate("document.activeElement.id") != "stage"


def test_what_happens_is_told_to_who_cannot_see_it(clicking):
    clicking.open(COINS)
    live = clicking.tab.locator("#live")
    assert live.get_attribute("aria-live") == "polite"
    clicking.click(93, 521)
    live.filter(has_text="Mask: ").wait_for()
    assert "sure 0." in live.inner_text()


def test_keys_typed_into_a_field_do_nothing_else(clicking):
    clicking.open(COINS)
    clicking.click(93, 521)
    clicking.tab.locator("#class-input").press_sequentially("cane 1")
    clicking.press("Backspace")
    assert clicking.objects() == ["object 1"]
    assert clicking.tab.locator("#class-input").input_value() == "cane "


def test_fingers_click_box_and_zoom(visit, nano, out):
    with serving({"nano": nano}, PageFolder(PICTURES / COINS, out)) as url:
        page = visit(url, has_touch=True, viewport={"width": 420, "height": 800})
        page.open(COINS)
        page.tab.touchscreen.tap(*page.to_screen(93, 521))
        page.tab.locator("[name=tool][value=out]").check(force=True)
        page.tab.touchscreen.tap(*page.to_screen(40, 560))
        page.tab.locator("[name=tool][value=box]").check(force=True)
        swipe(page, (160, 470), (260, 560))
        clicked, boxed = page.prompts()
        assert clicked["point_labels"] == [1, 0]
        assert (
            max(abs(a - b) for a, b in zip(boxed["box_xyxy"], (160, 470, 260, 560), strict=True))
            <= 2
        )


@pytest.mark.parametrize("end", ["touchEnd", "touchCancel"])
def test_two_fingers_zoom_to_their_middle_and_move_the_picture(visit, nano, out, end):
    with serving({"nano": nano}, PageFolder(PICTURES / COINS, out)) as url:
        page = visit(url, has_touch=True)
        page.open(COINS)
        (left, _), (right, _) = page.to_screen(0, 0), page.to_screen(100, 0)
        scale = (right - left) / 100
        x, y = page.to_screen(300, 250)
        around = lambda x, y, far: [(x - far, y - far / 2), (x + far, y + far / 2)]  # noqa: E731
        moved = [around(x, y, 40), around(x, y, 70), around(x, y, 120), around(x + 60, y + 30, 120)]
        touch(page, moved, end)
        assert page.objects() == []
        for dx, dy in ((60, 30), (150, 0)):
            page.press("n")
            page.tab.touchscreen.tap(x + dx, y + dy)
        middle, beside = (row["point_coords"][0] for row in page.prompts())
        assert max(abs(middle[0] - 300), abs(middle[1] - 250)) <= 1
        assert abs(beside[0] - middle[0] - 90 / (3 * scale)) <= 1.5
        assert abs(beside[1] - middle[1] + 30 / (3 * scale)) <= 1.5


def swipe(page, start, end):
    """Move one finger."""
    touch(page, [[page.to_screen(*start)], [page.to_screen(*end)]])


def touch(page, places, end="touchEnd"):
    """Put fingers on the screen, move them from place to place, and lift them."""
    session = page.tab.context.new_cdp_session(page.tab)
    for kind, fingers in zip(["touchStart", *["touchMove"] * len(places)], places, strict=False):
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(fingers)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": end, "touchPoints": []})


@pytest.mark.parametrize("width", [420, 800, 1280, 1920])
def test_nothing_is_cut_off_at_any_width(visit, nano, out, width):
    with serving({"nano": nano}, PageFolder(PICTURES, out)) as url:
        page = visit(url, viewport={"width": width, "height": 800})
        page.open(COINS)
        page.click(93, 521)
        page.masks()
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("#export", "#undo", "#tools", "#objects .row"):
            box = page.tab.locator(name).first.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_many_objects_scroll_in_their_own_place(clicking):
    clicking.open(COINS)
    for step in range(14):
        clicking.press("n")
        clicking.click(40 + 50 * step, 60 + 30 * step)
    clicking.masks()
    places = [section.bounding_box() for section in clicking.tab.locator("aside section").all()]
    for above, below in pairwise(places):
        assert above["y"] + above["height"] <= below["y"] + 1
    hidden = clicking.tab.locator("section.grows").evaluate(
        "one => one.scrollHeight - one.clientHeight"
    )
    assert hidden > 100
    assert clicking.tab.locator("#objects [aria-pressed=true]").is_visible()
