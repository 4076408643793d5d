"""What is copied from the page runs elsewhere, and gives the masks of the page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import PICTURES

NAME = "coins' best.jpg"  # a name that shells and YAML trip over


@pytest.fixture
def clicked(visit, nano, out, tmp_path):
    """Two objects on the page; beside them the folder of the picture."""
    from sam2_blocks.hosts.http.page.folder import PageFolder
    from tests.hosts.http.page.browsing import serving

    shutil.copy(PICTURES / "coins.jpg", tmp_path / NAME)
    with serving({"nano": nano}, PageFolder(tmp_path / NAME, out)) as url:
        page = visit(url)
        page.open(NAME)
        page.click(93, 521)
        page.click(40, 560, button="right")
        page.drag((160, 470), (260, 560))
        yield page, tmp_path


def run(command, folder, **more):
    environment = {**os.environ, "SAM2_BLOCKS_PLUGINS": "", **more}
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        shell=isinstance(command, str),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pipeline_runs(clicked):
    page, folder = clicked
    text = page.copied("pipeline")
    (folder / "clicks.yaml").write_text(text)
    command = text.splitlines()[0].removeprefix("# ")
    program = f"{sys.executable} -m sam2_blocks"
    run(command.replace("sam2-blocks", program, 1), folder)
    found = json.loads(next((folder / "out").rglob("predictions.json")).read_text())
    rows = found["detections"] if isinstance(found, dict) else found
    assert [row["segmentation"] for row in rows] == page.masks()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_request_runs(clicked):
    page, folder = clicked
    text = page.copied("curl")
    answer = json.loads(run(text, folder))
    assert [row["masks"] for row in answer["predictions"]] == page.masks()


def test_the_lines_of_python_run(clicked):
    page, folder = clicked
    text = page.copied("python")
    more = (
        "import json\nfrom sam2_blocks import to_rles\nfrom sam2_blocks.masks import rle_to_coco\n"
    )
    more += "print(json.dumps([rle_to_coco(rle) for rle in to_rles(found)]))\n"
    (folder / "clicks.py").write_text(text + more)
    printed = run([sys.executable, "clicks.py"], folder).splitlines()[-1]
    assert json.loads(printed) == page.masks()


def test_what_the_text_cannot_say_is_said_in_it(clicked):
    page, _ = clicked
    page.press("c")
    assert "# object 1: on the page, proposal 2 was chosen" in page.copied("pipeline")
    assert "# object 1: on the page, proposal 2 was chosen" in page.copied("python")


def test_without_objects_there_is_nothing_to_copy(clicked):
    page, _ = clicked
    for _ in range(3):
        page.press("Control+z")
    page.choose("[data-copy=curl]")
    page.tab.get_by_role("alert").get_by_text("click an object first").wait_for()
