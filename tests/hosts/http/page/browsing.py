"""A real browser on a real server, for the tests of the page."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np

from sam2_blocks.executor import load
from sam2_blocks.hosts.http.page.folder import PageFolder
from sam2_blocks.masks.rle import rle_to_coco
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.values import Prompt, PromptSet

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
OPTIONS = [
    "--no-sandbox",  # a container's root has none
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
]
MARGIN_PX, FOOT_PX = 24, 64  # around and below a picture that is shown whole, see view.js
HERE = "http://127.0.0.1"


@contextmanager
def serving(models, folder=None, **settings):
    """Serve the page from this process; gives the page's URL."""
    import uvicorn

    from sam2_blocks.cli.click import OWN_PICTURES
    from sam2_blocks.engine.plugins import load_plugins
    from sam2_blocks.hosts.http import create_app

    served = ServedModels(models)
    plugins = load_plugins(strict=True, points=[])
    chosen = ServiceSettings(**{**OWN_PICTURES, **settings})
    app = create_app(served, chosen, plugins=plugins, page=folder or PageFolder())
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, args=[[listener]], daemon=True)
    thread.start()
    try:
        yield f"{HERE}:{listener.getsockname()[1]}/page/"
    finally:
        server.should_exit = True
        thread.join(60)


def fresh_nano():
    """The shipped model, with a cache of its own."""
    return load("nano", device="cpu")


class Page:
    """The page as a person sees it.

    Args:
        tab: a tab of the browser.
        out: the folder that the server saves to.
    """

    def __init__(self, tab, out=None):
        self.tab = tab
        self._out = out
        self.stage = tab.locator("#stage")

    def open(self, name):
        """Open a picture of the folder and wait until it can be clicked."""
        if self.tab.locator("#folder").is_visible():
            self.tab.locator("#pictures").get_by_text(name, exact=True).click()
        self.wait_for(name)

    def wait_for(self, name):
        self.tab.wait_for_selector(f"body[data-picture={json.dumps(name)}]:not(.loading)")

    def to_screen(self, x, y):
        """The middle of a pixel, while the picture is shown whole."""
        width, height = map(int, self.tab.locator("#picture-size").inner_text().split()[::2])
        box = self.stage.bounding_box()
        room = (box["width"] - 2 * MARGIN_PX, box["height"] - FOOT_PX - 2 * MARGIN_PX)
        scale = min(room[0] / width, room[1] / height, 40)
        left = box["x"] + (box["width"] - width * scale) / 2
        top = box["y"] + (box["height"] - FOOT_PX - height * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def click(self, x, y, **how):
        self.tab.mouse.click(*self.to_screen(x, y), **how)

    def drag(self, start, end, steps=3):
        self.tab.mouse.move(*self.to_screen(*start))
        self.tab.mouse.down()
        self.tab.mouse.move(*self.to_screen(*end), steps=steps)
        self.tab.mouse.up()

    def press(self, keys):
        self.tab.keyboard.press(keys)

    def choose(self, name):
        """Choose from the menu of exports."""
        self.tab.locator("#export").click()
        self.tab.locator(f"#export-menu {name}").click()

    def export(self, form):
        """Return the bytes of an export, once all masks are there."""
        with self.tab.expect_download() as download:
            self.choose(f"[data-export={form}]")
        with open(download.value.path(), "rb") as file:
            return file.read()

    def masks(self):
        """Return the COCO run lengths of all objects, in their order."""
        return [row["segmentation"] for row in json.loads(self.export("coco"))["annotations"]]

    def copied(self, what):
        self.choose(f"[data-copy={what}]")
        self.tab.get_by_text("Copied.").first.wait_for()
        return self.tab.evaluate("navigator.clipboard.readText()")

    def saved(self):
        """Save, and return what is in the file."""
        # Not the first answer: that may be to what the page saved by itself before the last click.
        with self.tab.expect_request(lambda request: request.method == "PUT") as saving:
            self.press("Control+s")
        answer = saving.value.response()
        assert answer.ok, answer.text()
        name = self.tab.locator("#picture-name").inner_text()
        return json.loads((self._out / "clicks" / f"{name}.json").read_text())

    def prompts(self):
        return self.saved()["prompts"]

    def objects(self):
        """What the list of objects says."""
        names = self.tab.locator("#objects .row .name")
        return names.evaluate_all("(all) => all.map((one) => one.textContent)")  # all at once

    def coverage(self, x, y):
        """How far a mask covers a pixel of the picture, 0 to 255."""
        box = self.stage.bounding_box()
        place = [a - box[side] for a, side in zip(self.to_screen(x, y), "xy", strict=True)]
        script = """([x, y]) => document.getElementById("masks-canvas").getContext("2d")
          .getImageData(x * devicePixelRatio, y * devicePixelRatio, 1, 1).data[3]"""
        return self.tab.evaluate(script, place)

    def milliseconds(self, count):
        """When masks were asked for, answered and drawn after each click, once there are so many.

        One question that waits in the browser: many would hold up the server of this process.
        """
        return self.tab.evaluate(MILLISECONDS, count)


MILLISECONDS = """(count) => new Promise((resolve) => {
  const look = () => {
    const drawn = performance.getEntriesByName("pointer-to-mask");
    if (drawn.length < count) return setTimeout(look, 20);
    const asked = performance.getEntriesByType("resource")
      .filter(({ name }) => name.endsWith("/sam2/segment_image"));
    resolve(drawn.map(({ startTime, duration }, index) =>
      [asked[index].startTime - startTime, asked[index].responseEnd - startTime, duration]));
  };
  look();
})"""


def expected_prediction(executor, image, rows, **options):
    """What `Executor.segment` makes of rows of prompts."""
    prompts = [
        Prompt(
            np.array(row["box_xyxy"], np.float32) if "box_xyxy" in row else None,
            np.array(row["point_coords"], np.float32) if "point_coords" in row else None,
            np.array(row["point_labels"], np.int32) if "point_coords" in row else None,
        )
        for row in rows
    ]
    [embedding] = executor.embed([image])
    [found] = executor.segment([(embedding, PromptSet(tuple(prompts)))], **options)
    return found


def expected_masks(executor, image, rows):
    """Its masks, as the page exports them."""
    return [dict(rle_to_coco(rle)) for rle in expected_prediction(executor, image, rows).rles]


def wait_until(holds, seconds=120):
    """Wait for what no event tells."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
