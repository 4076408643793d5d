from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks import read_image
from sam2_blocks.hosts.http.page.folder import PageFolder
from tests.conftest import PICTURES
from tests.hosts.http.conftest import *  # noqa: F403 (its fixtures)
from tests.hosts.http.page.browsing import CHROMIUM, OPTIONS, Page, fresh_nano, serving
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


@pytest.fixture(scope="session")
def browser():
    """Chromium, from Playwright."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs the package playwright, see .ci/run"
    )
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the path, or its place in $CHROMIUM")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)


@pytest.fixture(scope="session")
def nano():
    return fresh_nano()


@pytest.fixture(scope="session")
def coins():
    return read_image(PICTURES / "coins.jpg")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def visit(browser, out):
    """``visit(url, option=value)``: opens the page; at the end, no request has left its origin."""
    contexts, requests, failures = [], [], []

    def open_tab(url, ready="body[data-ready]", **options):
        options = {"viewport": {"width": 1280, "height": 800}, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(120_000)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        origin = "/".join(url.split("/")[:3])
        context.on("request", lambda request: requests.append((origin, request.url)))
        context.on("weberror", lambda error: failures.append(str(error.error)))
        tab = context.new_page()
        tab.on("console", lambda said: "Security" in said.text and failures.append(said.text))
        tab.goto(url)
        tab.wait_for_selector(ready)
        return Page(tab, out)

    yield open_tab
    for context in contexts:
        context.close()
    away = [url for origin, url in requests if not url.startswith((f"{origin}/", "blob:", "data:"))]
    assert requests
    assert not away
    assert not failures


@pytest.fixture
def clicking(visit, nano, out):
    """The page with the example pictures and nano."""
    with serving({"nano": nano}, PageFolder(PICTURES, out)) as url:
        yield visit(url)
